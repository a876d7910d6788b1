"""What is shipped: the wheel, without the checkout around it."""

import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_wheel_holds_everything_and_works_alone(tmp_path: Path) -> None:
    """The wheel holds the five packages with their data, and the command line runs from it."""
    built = subprocess.run(
        [sys.executable, "-m", "uv", "build", "--wheel", "--out-dir", str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        archive.extractall(tmp_path / "alone")
    (commands,) = (tmp_path / "alone").glob("*.dist-info/entry_points.txt")
    assert [line.partition(" ")[0] for line in commands.read_text().splitlines()[1:] if line] == [
        "kubectl-segue",
        "segue",
    ]
    tops = {n.split("/")[0] for n in names if ".dist-info" not in n}
    assert tops == {"segue", "workflows", "activities", "worker", "segue_local"}
    for data in (
        "segue/py.typed",
        "segue/profiles/vllm.yaml",
        "segue_local/kwok/stages.yaml",
        "segue_local/servers/kubernetes/go.sum",
    ):
        assert data in names
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'alone')!r}); import segue, segue.cli; " + (
        "assert 'alone' in segue.__file__, segue.__file__; sys.exit(segue.cli.run(['plan', 'examples/rollout.yaml', "
        "'--replicas', '4']))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "floor 4 ready, ceiling 5 in all" in ran.stdout
