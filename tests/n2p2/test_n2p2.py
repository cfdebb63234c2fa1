"""Potentials of n2p2 against its formulas in bare Python, and what is written against what was trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.calculators.fd import calculate_numerical_forces
from typer.testing import CliRunner

from bdqm_tune import load_calculator
from bdqm_tune.cli.main import app
from bdqm_tune.config.hyperparameters import Hyperparameters
from bdqm_tune.descriptors.symmetry_functions import SymmetryFunctions
from bdqm_tune.errors import BadInput
from bdqm_tune.files import write_whole
from bdqm_tune.learning.network_potential import NetworkPotential
from bdqm_tune.learning.networks import make_network
from bdqm_tune.learning.scalers import FeatureScaler, Scaler, fit_scaler
from bdqm_tune.learning.targets import ReferenceEnergies
from bdqm_tune.n2p2 import export_n2p2, load_n2p2
from tests.n2p2.files import Folder, mixture

KINDS = {
    "minimum and maximum": Folder(),
    "centred": Folder(scaling=("scale_symmetry_functions", "center_symmetry_functions"), cutoff="2"),
    "from -1 to 2": Folder(scaling=("scale_symmetry_functions", "scale_min_short -1", "scale_max_short 2")),
    "only centred, softplus": Folder(scaling=("center_symmetry_functions",), activations="pp", cutoff="5"),
    "deviation, quintic": Folder(scaling=("scale_symmetry_functions_sigma",), cutoff="6"),
    "as they are, relu": Folder(scaling=(), activations="rr"),
    "logistic and tanh, different widths": Folder(activations="st", nodes={"H": [5, 2], "O": [3, 4]}),
    "one hidden layer": Folder(activations="t", nodes={"H": [6], "O": [6]}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_energies_are_those_of_the_formulas(kind: str, tmp_path: Path) -> None:
    atoms, folder = mixture(), KINDS[kind]
    predicted = load_n2p2(folder.write(tmp_path)).predict([atoms]).energies[0]
    assert predicted == pytest.approx(folder.energy(atoms) * units.Hartree, rel=1e-11)


def test_offsets_units_and_normalisation(tmp_path: Path) -> None:
    extra = ["atom_energy H -0.5", "atom_energy O -75.1", "mean_energy -2.5", "conv_energy 40.0", "conv_length 3.0"]
    atoms, folder = mixture(), Folder(extra=extra)
    expected = folder.energy(atoms) / 40 - 2.5 * 6 - 0.5 * 3 - 75.1 * 3
    folder.write(tmp_path)
    assert load_n2p2(tmp_path).predict([atoms]).energies[0] == pytest.approx(expected * units.Hartree, rel=1e-12)
    in_bohr = load_n2p2(tmp_path, energy_unit="eV").predict([atoms]).energies[0]
    assert in_bohr == pytest.approx(expected, rel=1e-12)
    larger = atoms.copy()
    larger.set_cell(atoms.cell / units.Bohr, scale_atoms=True)
    in_angstrom = load_n2p2(tmp_path, "angstrom", "eV").predict([larger]).energies[0]
    assert in_angstrom == pytest.approx(expected, rel=1e-12)


def test_normalised_nodes(tmp_path: Path) -> None:
    atoms, folder = mixture(), Folder(extra=["normalize_nodes"])
    folder.write(tmp_path)
    for own in folder.layers.values():
        own[:] = [(weights / weights.shape[1], biases / weights.shape[1]) for weights, biases in own]
    expected = folder.energy(atoms) * units.Hartree
    assert load_n2p2(tmp_path).predict([atoms]).energies[0] == pytest.approx(expected, rel=1e-11)


def test_forces_are_derivatives_of_the_energy(tmp_path: Path) -> None:
    for cutoff in ("2", "6"):
        load_n2p2(Folder(cutoff=cutoff).write(tmp_path)).save(tmp_path / cutoff)
        atoms = mixture()
        atoms.calc = load_calculator(tmp_path / cutoff)
        np.testing.assert_allclose(atoms.get_forces(), calculate_numerical_forces(atoms, 1e-4), atol=1e-5)


def potential(
    scaling: str = "standardise", per_element: bool = False, logarithm: bool = True, **options: object
) -> NetworkPotential:
    """A potential of water whose weights are drawn at random; oxygen has more functions than hydrogen."""
    g4 = {"O": {"etas": [0.5, 1.0], "zetas": [1.0, 2.5], "gammas": [-1.0, 1.0]}}
    descriptor = SymmetryFunctions(["H", "O"], {"H": 4.0, "O": 5.0}, {"etas": [0.5, 4.0], "rs": [0.0, 0.7]}, g4)
    random = np.random.default_rng(0)
    rattled = [mixture() for _ in range(8)]
    for atoms in rattled:
        atoms.positions += random.normal(scale=0.1, size=(6, 3))
    features = np.concatenate([descriptor.compute(atoms) for atoms in rattled])
    numbers = np.concatenate([atoms.numbers for atoms in rattled])
    options_of_scaler = scaling, (0.0, 1.0), per_element, 1e-2, logarithm
    scaler: Scaler = fit_scaler(lambda: [(features, numbers)], *options_of_scaler)  # type: ignore[arg-type]
    given = {"hidden_layers": [5, 4], "activation": "tanh", "initialization": "default", **options}
    hyperparameters = Hyperparameters(**given)  # type: ignore[arg-type]
    torch.manual_seed(1)
    network = make_network(descriptor.n_features, hyperparameters, [1, 8]).double()
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            torch.nn.init.uniform_(part.running_mean)  # type: ignore[arg-type]
            torch.nn.init.uniform_(part.weight)
    references = ReferenceEnergies({1: -13.6, 8: -432.1}, -100.0)
    return NetworkPotential(descriptor, scaler, references, 0.7, hyperparameters, network.eval(), known_elements=(1, 8))


def test_what_is_written_predicts_the_same(tmp_path: Path) -> None:
    kinds = {
        "standardised": potential(),
        "whitened": potential("whiten", logarithm=False),
        "whitened for each element": potential("whiten", True, logarithm=False, network="per_element"),
        "normalised, for each element": potential("normalise", per_element=True, network="per_element"),
        "batch normalisation, relu": potential(batchnorm=True, activation="relu"),
        "softplus, one layer": potential(hidden_layers=[7], activation="softplus"),
    }
    for n, (kind, one) in enumerate(kinds.items()):
        for m, files in enumerate((("bohr", "hartree"), ("angstrom", "eV"))):
            folder = tmp_path / f"{n}{m}"
            lines = export_n2p2(one, folder, *files)
            assert [line.split()[:3] for line in lines] == [
                ["pair_style", "hdnnp", "5.000000005"],
                ["pair_coeff", "*", "*"],
            ], kind
            here, there = one.predict([mixture()]), load_n2p2(folder, *files).predict([mixture()])
            np.testing.assert_allclose(there.energies, here.energies, rtol=1e-13, err_msg=kind)
            assert here.forces is not None
            assert there.forces is not None
            np.testing.assert_allclose(there.forces[0], here.forces[0], atol=1e-10, err_msg=kind)


def test_the_ranges_of_the_training_split_are_written(tmp_path: Path) -> None:
    one = potential()
    export_n2p2(one, tmp_path)
    rows = [line.split() for line in (tmp_path / "scaling.data").read_text().splitlines()]
    lowest = sorted(float(row[2]) for row in rows if row[0] == "2")
    scaler = one.scaler
    assert scaler.range is not None  # type: ignore[attr-defined]
    assert lowest == pytest.approx(sorted(scaler.range[0]))  # type: ignore[attr-defined]


def test_what_n2p2_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    found = {}
    for what, one in {
        "silu": potential(activation="silu"),
        "logarithm": potential("log"),
        "silu and logarithm": potential("whiten", activation="silu"),
    }.items():
        with pytest.raises(BadInput) as refused:
            export_n2p2(one, tmp_path / "refused")
        found[what] = str(refused.value)
    assert all(word in message for what, message in found.items() for word in what.split(" and ")), found
    assert "train with `--set activation=tanh`" in found["silu"]
    assert "train with `--set descriptor.scaling=standardise`" in found["logarithm"]
    assert "`--set activation=tanh,descriptor.logarithm=false`" in found["silu and logarithm"]
    assert not (tmp_path / "refused").exists()


DAMAGES = {
    "input.nn": [
        ("cutoff_type 1", "cutoff_type 7", "cutoff_type '7'"),
        ("cutoff_type 1", "cutoff_type 1 0.5", "cutoff_type '1 0.5'"),
        ("elements O H", "elements O Hx", "'Hx'"),
        ("elements O H", "elements O C", "H is not among the elements"),
        ("symfunction_short O  2", "symfunction_short O  20", "type '20'"),
        ("0.1  0.5  9.0", "0.1  half  9.0", "'half' is no number"),
        ("cutoff_type 1", "cutoff_type 1\ncutoff_type 1", "cutoff_type' is given 2 times"),
        ("scale_symmetry_functions", "scale_symmetry_functions\nnnp_gen 4", "generation '4'"),
        ("scale_symmetry_functions", "scale_symmetry_functions\nmean_energy 2.0", "there is mean_energy"),
        ("cutoff_type 1", "cutoff_type 1\nmean_energy 0\nconv_energy 0\nconv_length 1", "conv_energy must be positive"),
        ("cutoff_type 1", "cutoff_type 1\natom_energy H", "atom_energy needs 2 words"),
        ("cutoff_type 1", "cutoff_type 1\natom_energy He 1.0", "'He' is not among the elements"),
        ("cutoff_type 1", "cutoff_type 1\natom_energy H x", "'x' is no number"),
        ("cutoff_type 1", "cutoff_type 1\nelement_nodes_short H", "element_nodes_short needs 2 words"),
        ("global_nodes_short 4 3", "global_nodes_short 4 -3", "'-3' is no number of layers or nodes"),
        ("number_of_elements 2", "number_of_elements 3", "number_of_elements is not 2"),
        ("cutoff_type 1", "cutoff_type", "cutoff_type needs 1 words"),
        ("global_activation_short t t l", "global_activation_short t h l", "activation 'h'"),
        ("global_activation_short t t l", "global_activation_short t t t", "must be linear"),
        ("global_hidden_layers_short 2", "global_hidden_layers_short 3", "3 hidden layers"),
        ("global_nodes_short", "global_knots_short", "global_nodes_short is missing"),
        ("scale_symmetry_functions", "scale_symmetry_functions\nnnp_generation 4", "generation '4'"),
    ],
    "scaling.data": [
        ("2 1 ", "2 1 1e308 -1e308 0 1 # ", "least value above the greatest"),
        ("2 1 ", "2 1 -1e308 1e308 0 1 # ", "no finite range"),
        ("2 1 ", "2 1 1.0D+00 2 1 1 # ", "'1.0D+00' is no number"),
        ("1 9 ", "1 8 ", "each of the 9 functions of H"),
        ("2 4 ", "# 2 4 ", "has 3"),
    ],
    "weights.001.data": [("# values\n", "# values\n0.5\n", "has 60"), ("# values\n", "nan\n", "'nan' is no number")],
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damaged_files_are_refused_with_file_and_reason(name: str, tmp_path: Path) -> None:
    found = {}
    for place, (right, wrong, expected) in enumerate(DAMAGES[name]):
        folder = tmp_path / str(place)
        folder.mkdir()
        path = Folder().write(folder) / name
        assert right in path.read_text(), right
        path.write_text(path.read_text().replace(right, wrong, 1))
        try:
            load_n2p2(folder)
            found[wrong] = "nothing"
        except BadInput as error:
            if str(path) not in str(error) or expected not in str(error) or "\n" in str(error):
                found[wrong] = str(error)
    assert found == {}


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").mkdir()
    Folder().write(tmp_path / "there")
    shown = ""
    for arguments in (["import-n2p2", "there", "--out", "model"], ["export-n2p2", "model", "--out", "written"]):
        shown += CliRunner().invoke(app, arguments, catch_exceptions=False).stdout
    assert "bdqm-tune predict model FILE" in shown
    assert "cflength 1.88972" in shown
    assert "pair_coeff * * H O" in shown
    again = load_n2p2("written").predict([mixture()]).energies
    assert again == pytest.approx(load_n2p2("there").predict([mixture()]).energies, rel=1e-13)
    for arguments, reason in (
        (["export-n2p2", "model", "--out", "written"], "written exists"),
        (["import-n2p2", "nowhere"], "nowhere/input.nn: cannot be read"),
        (["import-n2p2", "there", "--out", "x", "--length-unit", "nm"], "length unit 'nm': must be bohr or angstrom"),
    ):
        with pytest.raises(BadInput, match=reason):
            CliRunner().invoke(app, arguments, catch_exceptions=False)


def test_the_files_say_their_units(tmp_path: Path) -> None:
    export_n2p2(potential(), tmp_path, "angstrom", "eV")
    with pytest.raises(BadInput, match="--length-unit angstrom --energy-unit eV"):
        load_n2p2(tmp_path)


def test_comments_and_other_names_of_keywords(tmp_path: Path) -> None:
    path = Folder().write(tmp_path) / "input.nn"
    expected = load_n2p2(tmp_path).predict([mixture()]).energies
    text = (
        path.read_text().replace("symfunction_short", "symfunction").replace("cutoff_type 1", "cutoff_type 1 ! cosine")
    )
    path.write_text(f"nnp_generation 2\n! a comment\n{text}")
    assert load_n2p2(tmp_path).predict([mixture()]).energies == expected


def test_an_element_that_was_not_trained_on_is_not_written(tmp_path: Path) -> None:
    g2 = {"etas": [0.5, 4.0], "rs": [0.0]}
    descriptor = SymmetryFunctions(["H", "C", "O"], 5.0, g2, {"etas": [0.5], "zetas": [1.0], "gammas": [1.0]})
    one = potential()
    n = descriptor.n_features
    scaler = FeatureScaler(np.full(n, 0.3), np.full(n, 0.7), range=np.array([[0.0], [2.0]]).repeat(n, 1))
    torch.manual_seed(0)
    network = make_network(n, one.hyperparameters, [1, 8]).double().eval()
    whole = replace(one, descriptor=descriptor, scaler=scaler, network=network)
    export_n2p2(whole, tmp_path)
    assert " C" not in (tmp_path / "input.nn").read_text()
    np.testing.assert_allclose(
        load_n2p2(tmp_path).predict([mixture()]).energies, whole.predict([mixture()]).energies, rtol=1e-13
    )


def test_functions_that_are_equal_in_the_files_are_numbered_as_there(tmp_path: Path) -> None:
    common = {"kind": "G2", "neighbours": ["O"], "cutoff": 5.0}
    close = [common | {"eta": 0.95, "rs": 1.0}, common | {"eta": 0.9500000000000001, "rs": 0.0}]
    functions = {"H": close, "O": close}
    n = 2
    scaler = FeatureScaler(np.zeros(n), np.ones(n), range=np.array([[0.0], [2.0]]).repeat(n, 1))
    one = potential()
    torch.manual_seed(0)
    network = make_network(n, one.hyperparameters, [1, 8]).double().eval()
    whole = replace(one, descriptor=SymmetryFunctions(["H", "O"], functions=functions), scaler=scaler, network=network)
    export_n2p2(whole, tmp_path)
    lines = [line.split() for line in (tmp_path / "input.nn").read_text().splitlines()]
    etas = {(words[4], words[5]) for words in lines if words[0] == "symfunction_short"}
    assert len({eta for eta, _ in etas}) == 1
    # Of n2p2's order, by R_s: the first weight of the first node is that of the function at R_s = 0.
    written = float((tmp_path / "weights.001.data").read_text().split()[0])
    first = network[0].weight[0] if hasattr(network, "__getitem__") else None
    assert first is not None
    assert written == pytest.approx(float(first[1]), rel=1e-12)


def test_the_cutoff_that_lammps_is_given_is_not_below_that_of_the_functions(tmp_path: Path) -> None:
    for cutoff in (5.200000024, 5.0, 6.123456789012345, 4.999999999999999):
        function = {"kind": "G2", "neighbours": ["H"], "eta": 1.0, "rs": 0.0, "cutoff": cutoff}
        descriptor = SymmetryFunctions(["H"], functions={"H": [function]})
        scaler = FeatureScaler(np.zeros(1), np.ones(1), range=np.array([[0.0], [1.0]]))
        one = potential()
        network = make_network(1, one.hyperparameters, [1]).double().eval()
        hydrogen = replace(one, descriptor=descriptor, scaler=scaler, network=network, known_elements=(1,))
        for length in ("bohr", "angstrom"):
            style, _ = export_n2p2(hydrogen, tmp_path / "with blank", length)
            words = style.split()
            file = (tmp_path / "with blank" / "input.nn").read_text().split("symfunction_short")[1]
            assert float(words[2]) * float(words[words.index("cflength") + 1]) >= float(file.split()[-1])
            assert f'dir "{tmp_path / "with blank"}"' in style


def test_a_disk_that_is_full_leaves_no_half_of_a_potential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(path: Path, text: str) -> None:
        if path.name == "scaling.data":
            raise OSError(28, "No space left on device")
        write_whole(path, text)

    monkeypatch.setattr("bdqm_tune.n2p2.writing.write_whole", fails)
    with pytest.raises(OSError, match="No space left"):
        export_n2p2(potential(), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_element_without_files_is_not_predicted(tmp_path: Path) -> None:
    loaded = load_n2p2(Folder().write(tmp_path))
    with pytest.raises(BadInput, match="He"):
        loaded.predict([Atoms("HeH", [[0, 0, 0], [0, 0, 1]])])
