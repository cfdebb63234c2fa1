"""The platform's two servers, MariaDB or MySQL and MLflow, run as an ordinary user."""
