BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v2.6.0.a');
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'example');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MINIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,0,3.20022874963468950681e+00);
INSERT INTO "trial_intermediate_values" VALUES(2,1,1,2.20022874963468950681e+00);
INSERT INTO "trial_intermediate_values" VALUES(3,1,2,1.20022874963468950681e+00);
INSERT INTO "trial_intermediate_values" VALUES(4,2,0,3.99112145408609553243e+00);
INSERT INTO "trial_intermediate_values" VALUES(5,2,1,2.99112145408609553243e+00);
INSERT INTO "trial_intermediate_values" VALUES(6,2,2,1.99112145408609553243e+00);
INSERT INTO "trial_intermediate_values" VALUES(7,3,0,3.60890449946303482064e+00);
INSERT INTO "trial_intermediate_values" VALUES(8,3,1,2.60890449946303482064e+00);
INSERT INTO "trial_intermediate_values" VALUES(9,3,2,1.60890449946303482064e+00);
INSERT INTO "trial_intermediate_values" VALUES(10,4,0,4.71737965689150406944e+00);
INSERT INTO "trial_intermediate_values" VALUES(11,4,1,3.71737965689150406944e+00);
INSERT INTO "trial_intermediate_values" VALUES(12,4,2,2.71737965689150406944e+00);
INSERT INTO "trial_intermediate_values" VALUES(13,5,0,4.42684835631848550008e+00);
INSERT INTO "trial_intermediate_values" VALUES(14,5,1,3.42684835631848550008e+00);
INSERT INTO "trial_intermediate_values" VALUES(15,5,2,2.42684835631848550008e+00);
INSERT INTO "trial_intermediate_values" VALUES(16,6,0,3.97810956646576485695e+00);
INSERT INTO "trial_intermediate_values" VALUES(17,6,1,2.97810956646576485695e+00);
INSERT INTO "trial_intermediate_values" VALUES(18,6,2,1.97810956646576485695e+00);
INSERT INTO "trial_intermediate_values" VALUES(19,7,0,5.21577906030100368894e+00);
INSERT INTO "trial_intermediate_values" VALUES(20,7,1,4.21577906030100368894e+00);
INSERT INTO "trial_intermediate_values" VALUES(21,7,2,3.21577906030100368894e+00);
INSERT INTO "trial_intermediate_values" VALUES(22,8,0,4.66925134379474648937e+00);
INSERT INTO "trial_intermediate_values" VALUES(23,8,1,3.66925134379474648937e+00);
INSERT INTO "trial_intermediate_values" VALUES(24,8,2,2.66925134379474648937e+00);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'num_layers',12.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(2,1,'num_nodes',25.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(3,1,'dropout_rate',2.28749634689773273521e-05,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(4,1,'lr',1.61931109124407296689e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(5,1,'gamma',5.73377945408556577433e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(6,2,'num_layers',7.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(7,2,'num_nodes',13.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(8,2,'dropout_rate',6.91121454086095488023e-02,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(9,2,'lr',3.86429165355264944876e-04,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(10,2,'gamma',7.69408367001678472618e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(11,3,'num_layers',12.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(12,3,'num_nodes',24.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(13,3,'dropout_rate',4.08904499463034892814e-02,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(14,3,'lr',3.25439111508848757936e-02,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(15,3,'gamma',5.13693796598963081656e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(16,4,'num_layers',16.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(17,4,'num_nodes',18.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(18,4,'dropout_rate',1.11737965689150342551e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(19,4,'lr',3.6437431392812541606e-05,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(20,4,'gamma',5.99050744542439339568e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(21,5,'num_layers',18.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(22,5,'num_nodes',30.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(23,5,'dropout_rate',6.26848356318485677718e-02,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(24,5,'lr',5.87882405664408563134e-03,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(25,5,'gamma',9.38194576148019154793e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(26,6,'num_layers',19.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(27,6,'num_nodes',11.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(28,6,'dropout_rate',7.81095664657647289347e-03,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(29,6,'lr',4.77883106585769851237e-05,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(30,6,'gamma',9.39071251714706622948e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(31,7,'num_layers',7.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(32,7,'num_nodes',18.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(33,7,'dropout_rate',1.91577906030100386658e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(34,7,'lr',1.35725403013136659835e-03,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(35,7,'gamma',8.45938556975236677359e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
INSERT INTO "trial_params" VALUES(36,8,'num_layers',10.0,'{"name": "IntUniformDistribution", "attributes": {"low": 6, "high": 20, "step": 1}}');
INSERT INTO "trial_params" VALUES(37,8,'num_nodes',24.0,'{"name": "IntUniformDistribution", "attributes": {"low": 10, "high": 30, "step": 1}}');
INSERT INTO "trial_params" VALUES(38,8,'dropout_rate',1.66925134379474593426e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.0, "high": 0.2}}');
INSERT INTO "trial_params" VALUES(39,8,'lr',1.18345870744106107259e-05,'{"name": "LogUniformDistribution", "attributes": {"low": 1e-05, "high": 0.1}}');
INSERT INTO "trial_params" VALUES(40,8,'gamma',8.75072157472483791451e-01,'{"name": "UniformDistribution", "attributes": {"low": 0.5, "high": 1.0}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,1.20022874963468972886e+00);
INSERT INTO "trial_values" VALUES(2,2,0,1.99112145408609553243e+00);
INSERT INTO "trial_values" VALUES(3,3,0,1.60890449946303482064e+00);
INSERT INTO "trial_values" VALUES(4,4,0,2.71737965689150406944e+00);
INSERT INTO "trial_values" VALUES(5,5,0,2.42684835631848550008e+00);
INSERT INTO "trial_values" VALUES(6,6,0,1.97810956646576485695e+00);
INSERT INTO "trial_values" VALUES(7,7,0,3.21577906030100368894e+00);
INSERT INTO "trial_values" VALUES(8,8,0,2.66925134379474604529e+00);
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-25 23:39:20.900030','2026-11-25 23:39:21.527861');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-25 23:39:21.622153','2026-11-25 23:39:22.169255');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-25 23:39:22.230363','2026-11-25 23:39:22.681275');
INSERT INTO "trials" VALUES(4,3,1,'PRUNED','2026-11-25 23:39:22.735200','2026-11-25 23:39:23.095657');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-25 23:39:23.164351','2026-11-25 23:39:23.410426');
INSERT INTO "trials" VALUES(6,5,1,'COMPLETE','2026-11-25 23:39:23.447260','2026-11-25 23:39:23.925694');
INSERT INTO "trials" VALUES(7,6,1,'COMPLETE','2026-11-25 23:39:24.013012','2026-11-25 23:39:25.600168');
INSERT INTO "trials" VALUES(8,7,1,'COMPLETE','2026-11-25 23:39:25.673619','2026-11-25 23:39:26.206748');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'2.10.1');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
COMMIT;
