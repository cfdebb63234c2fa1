"""amptorch's fingerprint parameters as our descriptors' settings."""

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from bdqm_tune.amptorch_import.record import Group, plain, shown
from bdqm_tune.descriptors.amptorch_faults import wrong_without_derivatives

SCHEMES = {"gmpordernorm": "gmp", "gmp": "gmp_groups", "gaussian": "symmetry_functions"}
Settings = dict[str, Any]  # what the constructor of a descriptor takes


def gmp_settings(params: Group) -> Settings:
    """Of `gmpordernorm`: orders, sigmas, cutoff, solid, square; amptorch's cutoff is not smooth."""
    if "MCSHs_detailed_list" in params:
        key = "MCSHs_detailed_list"
        entries = [(entry["order"], plain(entry["sigmas"])) for entry in params.get(key)]
        params.drop("MCSHs_detailed_list is used instead", "MCSHs")
        orders, widths = [order for order, _ in entries], [sigmas for _, sigmas in entries]
        if any(sigmas != widths[0] for sigmas in widths):
            params.refuse(key, "sigmas of their own for an order; those of the first are taken for all")
        found = {"orders": orders, "sigmas": widths[0]}
    else:
        key = "MCSHs"
        given = params.get(key, {})
        found = {"orders": plain(given["orders"]), "sigmas": plain(given["sigmas"])}
    params.note(key, params.given[key], f"descriptor.orders: {found['orders']}, sigmas: {shown(found['sigmas'])}")
    found |= {
        "cutoff": params.get("cutoff"),
        "smooth_cutoff": False,
        "solid": bool(params.get("solid_harmonics", True)),
        "square": bool(params.get("square", True)),
    }
    for name, option in (("cutoff", "cutoff"), ("solid_harmonics", "solid"), ("square", "square")):
        value = found[option]
        params.note(name, value, f"descriptor.{option}: {'null' if value is None else shown(value)}")
    if not found["solid"] and 9 in found["orders"]:
        params.refuse(key, "amptorch's surface harmonics of order 9 are not those of its definition, which hold here")
    _common(params)
    return found


def group_settings(params: Group) -> Settings:
    """Of `gmp`: groups, sigmas, cutoff, square; amptorch's cutoff is not smooth."""
    if "MCSHs_detailed_list" in params:
        key = "MCSHs_detailed_list"
        entries = [(int(e["order"]), [int(e["group"])], plain(e["sigmas"])) for e in params.get(key)]
        params.drop("MCSHs_detailed_list is used instead", "MCSHs")
    else:
        key = "MCSHs"
        given = {int(order): entry for order, entry in params.get(key, {}).items()}
        entries = [(order, plain(given[order]["groups"]), plain(given[order]["sigmas"])) for order in sorted(given)]
    groups: dict[int, list[int]] = {}
    for order, numbers, _ in entries:
        groups.setdefault(order, []).extend(numbers)
    sigmas = entries[0][2]
    if any(widths != sigmas for *_, widths in entries):
        params.refuse(key, "sigmas of their own for an order or group; those of the first are taken for all")
    listed = [(order, number) for order, numbers, _ in entries for number in numbers]
    if listed != [(order, number) for order, numbers in groups.items() for number in numbers]:
        params.refuse(key, "the groups of an order must be listed together, as their features are here")
    if max(groups) > 5:
        params.refuse(key, "amptorch gives 0 for the groups of orders beyond 5; here they are as defined")
    params.note(key, params.given[key], f"descriptor.groups: {groups}, sigmas: {shown(sigmas)}")
    cutoff, square = params.get("cutoff"), bool(params.get("square", False))
    params.note("cutoff", cutoff, f"descriptor.cutoff: {cutoff}")
    params.note("square", square, f"descriptor.square: {shown(square)}")
    _common(params)
    return {"groups": groups, "sigmas": sigmas, "cutoff": cutoff, "smooth_cutoff": False, "square": square}


def symmetry_settings(params: Group, cutoff_params: Group, elements: list[str] | None) -> Settings:
    """Of `gaussian`: cutoff, g2, g4, g5, each for elements of the centre or `default`; and the cutoff function."""
    centres = {}
    for centre in params.given:
        if elements is not None and centre not in (*elements, "default"):
            params.refuse(centre, f"not among the elements {', '.join(elements)}", harmless=True)
        else:
            centres[centre] = Group(params.translation, f"{params.name}.{centre}", params.get(centre))
    found: Settings = {
        "cutoff": {centre: functions.get("cutoff") for centre, functions in centres.items()},
        "cutoff_function": "cosine",
        "gamma": None,
    }
    for kind, lists in (
        ("g2", ("etas", "rs_s")),
        ("g4", ("etas", "zetas", "gammas")),
        ("g5", ("etas", "zetas", "gammas")),
    ):
        given = {centre: _lists(functions, kind.upper(), lists) for centre, functions in centres.items()}
        found[kind] = given if any(given.values()) else None
        if set(given) == {"default"}:
            found[kind] = given["default"]
    for centre, functions in centres.items():
        functions.note("cutoff", found["cutoff"][centre], f"descriptor.cutoff: {found['cutoff'][centre]}")
        functions.finish()
    function = str(cutoff_params.get("cutoff_func", "Cosine")).lower()
    found["cutoff_function"] = function
    cutoff_params.note("cutoff_func", function, f"descriptor.cutoff_function: {function}")
    if function == "polynomial":
        found["gamma"] = cutoff_params.get("gamma")
        cutoff_params.note("gamma", found["gamma"], f"descriptor.gamma: {found['gamma']}")
    cutoff_params.drop("only of the polynomial cutoff function", "gamma")
    cutoff_params.finish()
    return found


def fault(settings: Mapping[str, Any], with_forces: bool) -> str:
    """A warning where amptorch's features of a training were wrong; "" where they were not."""
    wrong = "" if with_forces else wrong_without_derivatives(settings)
    return wrong and (
        f"without forces (get_forces: False), amptorch computes {wrong} wrongly; here it is as defined, so that "
        "predictions and errors are not amptorch's; docs/amptorch.md"
    )


def _lists(functions: Group, kind: str, names: tuple[str, ...]) -> dict[str, list[float]] | None:
    """The lists of one kind of functions, each number once, as amptorch counts them."""
    if kind not in functions:
        return None
    given = functions.get(kind)
    lists = {name.removesuffix("_s"): sorted(set(plain(given[name]))) for name in names}
    functions.note(kind, given, f"descriptor.{kind.lower()}: {shown(lists)}")
    return lists


def _common(params: Group) -> None:
    """The keys that both families of multipoles have."""
    setup = params.get("rs_setup")
    if setup is not None and (setup.get("setup") != "constant" or setup.get("rs") != 1):
        params.refuse("rs_setup", "harmonics with another r_s than 1 Å")
    else:
        params.drop("the same as here: r_s = 1 Å", "rs_setup")
    if params.get("log", False):
        params.refuse("log", "the decimal logarithm of the features; descriptor.scaling: log is another one")
    else:
        params.drop("off, as here", "log")
    params.drop("amptorch does nothing with it", "prime_threshold")
    if "atom_gaussians" in params:
        params.get("atom_gaussians")
    params.finish()


def pseudodensity_folder(params: Group) -> str | None:
    """The folder of the `.g` files that are given; None, and noted, where they are not in one or not given."""
    given = params.get("atom_gaussians")
    if not given:
        params.refuse(
            "atom_gaussians",
            "not given: amptorch takes its own files (amptorch/descriptor/utils/pseudodensity_psp_v3), whose folder "
            "may be given as descriptor.pseudodensities; the table of this package is another one",
        )
        return None
    paths = {symbol: PurePath(str(path)) for symbol, path in given.items()}
    folders = {str(path.parent) for path in paths.values()}
    misnamed = [str(path) for symbol, path in paths.items() if path.name.split("_")[0] != symbol or path.suffix != ".g"]
    if len(folders) > 1 or misnamed:
        params.refuse(
            "atom_gaussians", "collect the files in one folder, named as Cu_*.g, for descriptor.pseudodensities"
        )
        return None
    (folder,) = folders
    params.note("atom_gaussians", given, f"descriptor.pseudodensities: {folder}")
    return folder
