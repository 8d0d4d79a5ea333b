import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "vqvae2"

ORDER = [
    "code_grid",
    "configuration",
    "files",
    "messages",
    "randomness",
    "distributed",
    "nn.modules",
    "nn.residual",
    "nn.causal",
    "nn.attention",
    "priors.likelihood",
    "autoencoder.straight_through",
    "autoencoder.codebook",
    "autoencoder.vqvae",
    "priors.domain",
    "priors.network",
    "priors.conditioning",
    "priors.embedding",
    "priors.heads",
    "priors.stack",
    "priors.pixelcnn",
    "priors.gated_pixelcnn",
    "priors.row_lstm",
    "priors.diagonal_bilstm",
    "priors.pixelcnnpp",
    "priors.pixelsnail",
    "priors.transformer",
    "priors.prior",
    "priors",
    "sampling.config",
    "sampling.cuda_graphs",
    "sampling.inpaint",
    "sampling.level",
    "sampling.hierarchy",
    "autoencoder.pixels",
    "weights",
    "pipeline",
    "imaging.convert",
    "imaging.png",
    "imaging.grid",
    "imaging.colormaps",
    "data.synthetic",
    "data.decode",
    "data.order",
    "data.listing",
    "data.folders",
    "data.tables",
    "data.shards",
    "data.streaming",
    "data.sources",
    "data.config",
    "data.images",
    "data.augmentation",
    "data.codes",
    "data.extraction",
    "data.pixels",
    "imaging.previews",
    "metrics.describe",
    "metrics.extractors",
    "metrics.classifier",
    "metrics.accuracy_score",
    "metrics.results",
    "metrics.usage",
    "metrics.fid",
    "metrics.kid",
    "metrics.inception_score",
    "metrics.precision_recall",
    "metrics.features",
    "metrics.nearest_neighbours",
    "metrics.rejection",
    "metrics.auroc",
    "metrics.distortion",
    "metrics.likelihood",
    "metrics.agreement",
    "metrics.probe",
    "runs.log",
    "runs.config",
    "runs.folder",
    "runs.presets",
    "export.progress",
    "export.selection",
    "export.samples",
    "export.reconstructions",
    "export.inpaintings",
    "training.loop",
    "training.checkpoint",
    "training.session",
    "training.speed",
    "training.stage",
    "training.fit",
    "training.autoencoder",
    "training.prior",
    "training.extraction",
    "training.stages",
    "evaluation.evaluation",
    "evaluation.image_sets",
    "evaluation.accuracy_score",
    "evaluation.samples",
    "evaluation.out_of_distribution",
    "evaluation.comparison",
    "report.doctor",
    "report.plots",
    "report.formatting",
    "report.sections",
    "report.report",
    "cli.device",
    "cli.display",
    "cli.options",
    "cli.sample",
    "cli.inpaint",
    "cli.train",
    "cli.reconstruct",
    "cli.evaluate",
    "cli.compare",
    "cli.report",
    "cli.doctor",
    "cli.presets",
    "cli.demo",
    "cli.main",
]  # fmt: skip
"""Each may import only from those before it (docs/architecture.md says why this order)."""

TORCH_ALONE = (
    "nn.", "likelihood", "codebook", "autoencoder", "pixels", "priors", "sampling",
    "randomness",
)  # fmt: skip


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Modules that a file imports, and whether at the top."""
    tree = ast.parse(path.read_text())
    top = set(tree.body)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert all(alias.name != "*" for alias in node.names), f"{path}: star import"
            found += [(node.module, node in top)]
            found += [(f"{node.module}.{alias.name}", node in top) for alias in node.names]
        elif isinstance(node, ast.Import):
            found += [(alias.name, node in top) for alias in node.names]
    return found


def sources() -> dict[str, Path]:
    return {name_of(path): path for path in PACKAGE.rglob("*.py")}


def test_every_file_has_its_place_in_the_order():
    faces = {
        "__main__",
        "__init__",
        "nn",
        "data",
        "metrics",
        "training",
        "report",
        "cli",
        "export",
    } | {
        "autoencoder",
        "sampling",
        "imaging",
        "runs",
        "evaluation",
    }
    assert set(sources()) - faces == set(ORDER)


def test_imports_point_one_way():
    for name, path in sources().items():
        if name not in ORDER:
            continue
        for module, _ in imports(path):
            inner = module.removeprefix("vqvae2.")
            if module.startswith("vqvae2.") and inner in ORDER:
                assert ORDER.index(inner) < ORDER.index(name), f"{name} imports {inner}"


def test_models_need_torch_alone():
    import sys

    allowed = {*sys.stdlib_module_names, "torch", "vqvae2"}
    for name, path in sources().items():
        if name.startswith(TORCH_ALONE):
            assert {module.split(".")[0] for module, _ in imports(path)} <= allowed, name


def test_functions_and_files_stay_short():
    for path in sources().values():
        text = path.read_text()
        assert len(text.splitlines()) < 500, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 65, f"{path}: {node.name}"
