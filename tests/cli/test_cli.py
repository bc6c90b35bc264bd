import dataclasses
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from PIL import Image

from numpyvit import Classifier, data
from numpyvit.cli.main import COMMANDS, main, make_parser
from numpyvit.data import fetch as fetching
from numpyvit.storage.archives import load_npz
from numpyvit.train.recipe import Recipe
from numpyvit.train.recipes import catalogue


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", "--epochs", "12", "--out", str(folder), "--quiet"]) == 0
    return folder


def call(capsys, *args):
    """Exit code, lines of stdout, lines of stderr."""
    code = main([str(a) for a in args])
    out, err = capsys.readouterr()
    return code, out.splitlines(), err.splitlines()


def refused(capsys, *args):
    """The one line on stderr for an error that the user can correct."""
    code, out, err = call(capsys, *args)
    assert code == 2
    assert out == []
    assert len(err) == 1
    assert err[0].startswith("numpyvit: error: ")
    return err[0]


def test_train_prints_its_epochs_and_the_next_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, "train", "--epochs", 2, "--seed", 3, "--val", 0.1)
    assert (code, err) == (0, [])
    first = (
        r"digits: 1,295 training and 359 test images; a ViT with [\d,]+ weights; "
        r"runs/digits-digits-[\d-]+$"
    )
    assert re.match(first, out[0])
    assert [line.split()[:2] for line in out[1:3]] == [["epoch", "1"], ["epoch", "2"]]
    assert re.match(
        r"test accuracy [\d.]+% after [\d.]+ s of training; next: numpyvit evaluate runs/", out[3]
    )
    assert (tmp_path / out[0].split()[-1] / "model.npz").exists()


def test_evaluate(run, capsys):
    code, out, err = call(capsys, "evaluate", run)
    assert (code, err) == (0, [])
    assert len(out) == 13
    assert out[0] == "the test set of digits"
    assert re.match(r"all +359 +\d\d\.\d\d%   loss \d\.\d+", out[-1])
    _, test = data.digits()
    p = Classifier.load(run / "model.npz").predict(test.images)
    assert f"{np.mean(p.argmax(1) == test.labels):.2%}" in out[-1]


def test_predict_light_on_dark_and_dark_on_light(run, tmp_path, capsys):
    _, test = data.digits()
    p = Classifier.load(run / "model.npz").predict(test.images)
    sure = int(p.max(1).argmax())
    pixels = test.images[sure, ..., 0]
    Image.fromarray(pixels).save(tmp_path / "dark.png")
    Image.fromarray(255 - np.pad(pixels, 1)).resize((100, 100), 0).save(tmp_path / "light.png")
    code, out, err = call(capsys, "predict", run, tmp_path / "dark.png", tmp_path / "light.png")
    assert (code, err) == (0, [])
    label = test.classes[p[sure].argmax()]
    assert re.match(
        rf".*dark\.png: {label} \(\d+\.\d%\), \d \(\d+\.\d%\), \d \(\d+\.\d%\)   \[8x8\]$", out[0]
    )
    assert "inverted: it was dark on light" in out[1]
    assert call(capsys, "predict", run / "model.npz", tmp_path / "dark.png")[1] == out[:1]


def test_info(run, capsys):
    code, out, _ = call(capsys, "info", "--preset", "ViT-Ti/16")
    assert code == 0
    total = next(line for line in out if line.startswith("total")).split()
    assert total[1] == "5,717,416"
    # By hand: patches, 12 blocks of 4 D^2 N + 2 N^2 D + 8 D^2 N multiplications, head;
    # twice that with the additions.
    N, D = 197, 192
    assert total[2] == f"{2 * (196 * 768 * D + 12 * (12 * D * D * N + 2 * N * N * D) + D * 1000):,}"
    assert any(line.startswith("presets: digits, mnist") for line in out)
    assert [line.split()[0] for line in out[-4:]] == ["workers", "BLAS", "allocator", "interpreter"]
    code, out, _ = call(capsys, "info", run)
    assert code == 0
    weights = load_npz(run / "model.npz", "numpyvit classifier 1")[1]["weights"]
    assert ["total", f"{weights.size:,}"] in [line.split()[:2] for line in out]


def test_info_times_a_step(capsys):
    code, out, _ = call(
        capsys, "info", "--time", "--batch-size", 16, "--workers", 2, "--micro-batch", 8
    )
    assert code == 0
    table = {line[:30].strip(): line[30:].split() for line in out[-30:]}
    assert table["other blocks.mlp.gelu"][:2] != table["last block.mlp.gelu"][:2]
    assert 0 < float(table["other blocks.mlp.fc1"][3]) < 1000  # the time of the matrix products
    assert float(table["all"][0]) > float(table["other blocks.attention"][0]) > 0
    assert re.match(
        r"batches of 16, 2 workers: training [\d,]+ images/s \(\d+% of the "
        r"time is that of the products alone\)",
        out[-1],
    )


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["trian"], "did you mean 'train'"),
        ([], "are required"),
        (["train", "--data", "mnits"], "data set 'mnits' is unknown: did you mean 'mnist'"),
        (
            ["train", "--data", "mnist", "--data-dir", "/nowhere"],
            "/nowhere is not a folder that exists",
        ),
        (["train", "--data", "./photos"], "./photos is neither a folder nor an .npz file"),
        (["train", "--data", "cifar10", "--test", "0.1"], "--test is for your own images"),
        (["train", "--image-size", "32"], "--image-size is for a folder of images"),
        (["train", "--patience", "3"], "patience is 3, but no validation set is held out"),
        (["train", "--schedule", "cosin"], "schedule 'cosin' is unknown: did you mean 'cosine'"),
        (
            ["train", "--randaugment", "-1"],
            "randaugment is -1: it must be an integer of at least 0",
        ),
        (["train", "--erase", "1.5"], "erase is 1.5: it must be a number from 0 to 1"),
        (["train", "--mixup", "nan"], "mixup is nan"),
        (["train", "--resume", "x", "--no-flip"], "--flip cannot be given with --resume"),
        (["download", "mnits"], "data set 'mnits' is unknown: did you mean 'mnist'"),
        (["compare", "/nowhere"], "holds no run"),
        (["augment", "--out", "x.jpg"], "it must end in .png"),
        (["augment"], "are required: --out"),
        (
            ["train", "--recipe", "mnist-bst"],
            "recipe 'mnist-bst' is unknown: did you mean 'mnist-best'",
        ),
        (["train", "--recipe", "own"], "--recipe own needs --data"),
        (
            ["train", "--recipe", "mnist-best", "--data-dir", "/nowhere"],
            "/nowhere is not a folder that exists",
        ),
        (["train", "--preset", "digit"], "did you mean 'digits'"),
        (["train", "--preset", "ViT-B/16"], "8x8 cannot be cut into patches of 16x16"),
        (["train", "--epochs", "many"], "'many' is not an integer above 0"),
        (["train", "--epochs", "0"], "argument --epochs: '0' is not an integer above 0"),
        (["train", "--lr", "-1"], "lr is -1.0: it must be a number above 0 and at most 1,000,000"),
        (["train", "--workers", "0"], "--workers: '0' is not"),
        (
            ["info", "--batch-size", "4"],
            "--batch-size, --workers and --micro-batch are for info --time",
        ),
        (["train", "--micro-batch", "0"], "--micro-batch: '0' is not"),
        (["train", "--val", "2"], "val is 2.0"),
        (["train", "--device", "gpu"], "the device is 'gpu': use cpu, cuda, or cuda:N"),
        (["gradcheck", "--device", "gpu"], "the device is 'gpu': use cpu, cuda, or cuda:N"),
        (
            ["train", "--xyz", "9"],
            "unrecognized arguments: --xyz 9 (see numpyvit train --help)",
        ),
        (["train", "--dta", "mnist"], "--dta mnist: did you mean --data? (see numpyvit train --h"),
        (["train", "--rotat=3"], "unrecognized arguments: --rotat=3: did you mean --rotate?"),
        (["evaluate", "x", "--wrokers", "2"], "did you mean --workers? (see numpyvit evaluate"),
        (["train", "mnist"], "unrecognized arguments: mnist (see numpyvit train --help)"),
        (["train", "--lr", "fast"], "argument --lr: 'fast' is not a number"),
        (["train", "--seed", "1.5"], "argument --seed: '1.5' is not an integer"),
        (["train", "--randaugment", "x"], "argument --randaugment: 'x' is not an integer"),
        (["train", "--precision", "foo"], "precision 'foo' is unknown: choose one of float32"),
        (["train", "--precision", "tf32"], "precision tf32 is for GPUs"),
        (["train", "--data-dir", "."], "digits is not read from it"),
        (["augment", "--data-dir", ".", "--out", "x.png"], "digits is not read from it"),
        (["augment", "--out", "no/x.png"], "there is no folder no: create it"),
        (["train", "--data", "emoji"], "'emoji' is unknown: choose one of digits, mnist"),
        (["train", "--data", "emoji"], "(the current folder contains no folder 'emoji')"),
        (["train", "--preset", "foo"], "preset 'foo' is unknown: choose one of"),
        (["train", "--schedule", "step"], "schedule 'step' is unknown: choose one of"),
        (["train", "--resume", "/nowhere"], "holds no run"),
        (["train", "--resume", "x", "--lr", "1"], "--lr cannot be given with --resume"),
        (["evaluate", "/nowhere"], "holds no run"),
        (
            ["predict", "/nowhere", "x.png"],
            "/nowhere does not exist: the first argument is the folder of a run",
        ),
        (["predict", "."], ". holds no run: to classify its images, name them one by one (./*)"),
        (["predict", "nowhere.npz"], "predict needs images after nowhere.npz"),
        (["predict", "nowhere.npz", "x.png"], "nowhere.npz does not exist"),
        (["info", "--preset", "ViT-Ti/15"], "did you mean 'ViT-Ti/1"),
    ],
)
def test_errors_are_one_line_and_leave_nothing_behind(args, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert message in refused(capsys, *args)
    assert list(tmp_path.iterdir()) == []


def test_download_fetches_missing_files(tmp_path, capsys, monkeypatch):
    fetched = []

    def fetch(urls, path, size, sha256, bar):
        fetched.append((path.name, urls[0], size, len(sha256), bar))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"hello")

    monkeypatch.setattr(fetching, "fetch", fetch)
    monkeypatch.setenv("NUMPYVIT_DATA", str(tmp_path / "cache"))
    for _ in range(2):  # the second time there is nothing left to fetch
        assert main(["download", "fashion-mnist", "cifar100"]) == 0
        out = capsys.readouterr().out
        assert f"cifar100: {tmp_path / 'cache' / 'cifar100'}" in out
    assert len(fetched) == 5
    name = "cifar-100-binary.tar.gz"
    assert fetched[4] == (name, f"https://www.cs.toronto.edu/~kriz/{name}", 168_513_733, 64, True)
    assert "train-images-idx3-ubyte.gz cannot be unpacked" in refused(
        capsys, "train", "--data", "fashion-mnist"
    )


def test_without_a_network_the_error_names_the_files_and_the_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NUMPYVIT_DATA", str(tmp_path))
    line = refused(capsys, "train", "--data", "mnist", "--quiet")
    for name in (
        "train-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
        str(tmp_path / "mnist"),
    ):
        assert name in line
    assert list((tmp_path / "mnist").iterdir()) == []


def npz_run(tmp_path, n=60):
    train, _ = data.digits()
    np.savez(tmp_path / "mine.npz", images=train.images[:n], labels=train.labels[:n])
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path / "mine.npz"),
                "--epochs",
                "1",
                "--quiet",
                "--out",
                str(tmp_path / "run"),
            ]
        )
        == 0
    )


def test_changed_data_is_not_evaluated(tmp_path, capsys):
    npz_run(tmp_path)
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    train, _ = data.digits()
    np.savez(tmp_path / "mine.npz", images=train.images[:61], labels=train.labels[:61])
    assert "images that it was trained on may be in the test set" in refused(
        capsys, "evaluate", tmp_path / "run"
    )


def test_data_that_was_moved(tmp_path, capsys):
    npz_run(tmp_path)
    (tmp_path / "mine.npz").rename(tmp_path / "yours.npz")
    for command in (["evaluate"], ["train", "--resume"]):
        line = refused(capsys, *command, tmp_path / "run")
        assert "mine.npz, on which " in line
        assert "name its new place with --data" in line
    for command in (["evaluate"], ["train", "--resume"]):
        assert main([*command, str(tmp_path / "run"), "--data", str(tmp_path / "yours.npz")]) == 0
    assert (
        f"next: numpyvit evaluate {tmp_path / 'run'} --data {tmp_path / 'yours.npz'}"
        in capsys.readouterr().out
    )


def test_images_that_are_not_square_from_training_to_prediction(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (30, 12, 20, 3), np.uint8)
    np.savez(tmp_path / "mine.npz", images=images, labels=np.arange(30) % 3)
    run = str(tmp_path / "run")
    assert (
        main(
            [
                "train",
                "--data",
                str(tmp_path / "mine.npz"),
                "--epochs",
                "1",
                "--quiet",
                "--out",
                run,
            ]
        )
        == 0
    )
    assert main(["train", "--resume", run, "--quiet"]) == 0
    assert main(["evaluate", run]) == 0
    Image.new("RGB", (50, 20)).save(tmp_path / "x.jpg")
    assert main(["predict", run, str(tmp_path / "x.jpg")]) == 0


def test_a_lost_model_is_written_again(tmp_path, capsys):
    npz_run(tmp_path)
    model = tmp_path / "run" / "model.npz"
    before = Classifier.load(model)
    model.unlink()
    assert "has lost its model.npz" in refused(capsys, "evaluate", tmp_path / "run")
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert np.array_equal(Classifier.load(model).params.flat, before.params.flat)


def test_predict_refuses_a_model_of_two_channels(tmp_path, capsys):
    np.savez(
        tmp_path / "mine.npz", images=np.zeros((20, 8, 8, 2), np.uint8), labels=np.arange(20) % 2
    )
    mine, run = str(tmp_path / "mine.npz"), str(tmp_path / "r")
    assert main(["train", "--data", mine, "--epochs", "1", "--quiet", "--out", run]) == 0
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    assert "expects images with 2 channels" in refused(capsys, "predict", run, tmp_path / "x.png")


def test_a_run_inside_the_folder_of_images_is_refused(tmp_path, capsys):
    for name in "ab":
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("L", (8, 8), 9 * i).save(tmp_path / name / f"{i}.png")
    assert "lies in the folder of the images" in refused(
        capsys, "train", "--data", tmp_path, "--image-size", "8", "--out", tmp_path / "run"
    )
    assert "it can be 4096 at most" in refused(
        capsys, "train", "--data", tmp_path, "--image-size", "99999999"
    )
    assert "can only be cut into 3,721 patches of 1x1" in refused(
        capsys, "train", "--data", tmp_path, "--image-size", "61"
    )
    assert "0 cannot be held out" in refused(capsys, "train", "--data", tmp_path, "--test", "0")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_a_run_may_be_named_like_a_file(tmp_path, capsys):
    assert main(["train", "--epochs", "1", "--quiet", "--out", str(tmp_path / "x.npz")]) == 0
    assert main(["evaluate", str(tmp_path / "x.npz")]) == 0


def test_compare(run, capsys):
    code, out, _ = call(capsys, "compare", run, run)
    assert code == 0
    assert any(line.startswith("last test accuracy") for line in out)


def test_an_out_that_holds_a_run_is_refused_and_untouched(run, capsys):
    before = {p.name: p.read_bytes() for p in run.iterdir()}
    assert "already holds a run" in refused(capsys, "train", "--out", run)
    assert {p.name: p.read_bytes() for p in run.iterdir()} == before


def test_an_out_that_is_a_file_is_refused(tmp_path, capsys):
    (tmp_path / "x").write_text("precious")
    assert "is a file" in refused(capsys, "train", "--out", tmp_path / "x")
    assert "x" in refused(capsys, "train", "--out", tmp_path / "x" / "y")
    assert (tmp_path / "x").read_text() == "precious"


def test_damaged_files_are_refused(run, tmp_path, capsys):
    (tmp_path / "x.png").write_text("hello")
    assert "cannot be read as an image" in refused(capsys, "predict", run, tmp_path / "x.png")
    assert "does not exist" in refused(capsys, "predict", run, tmp_path / "y.png")
    (tmp_path / "model.npz").write_bytes((run / "model.npz").read_bytes()[:1000])
    (tmp_path / "config.json").write_bytes((run / "config.json").read_bytes())
    assert "is damaged" in refused(capsys, "evaluate", tmp_path)
    assert "is a 'numpyvit checkpoint 1', wanted a 'numpyvit classifier 1'" in refused(
        capsys, "predict", run / "checkpoint.npz", tmp_path / "x.png"
    )


def started(tmp_path, *options, **how):
    """Start a training, and return its process when it has written a row."""
    metrics = tmp_path / "run" / "metrics.jsonl"
    command = [sys.executable, "-W", "error", "-m", "numpyvit", "train", "--epochs", "500"]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "run"), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **how,
    )
    while not metrics.exists() or not metrics.read_text():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are Unix's")
@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_and_names_the_next_command(name, code, tmp_path):
    """With a real process and a real signal."""
    process = started(tmp_path)
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=30)
    assert process.returncode == code
    found = re.fullmatch(
        r"numpyvit: stopped and saved at step (\d+); "
        r"continue with: numpyvit train --resume (\S+)\n",
        err,
    )
    assert found, err
    assert load_npz(tmp_path / "run" / "checkpoint.npz", "numpyvit checkpoint 1")[0]["step"] == int(
        found[1]
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are Unix's")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_that_is_ignored_stays_ignored(name, tmp_path):
    """As nohup and the background jobs of a script have it."""
    number = getattr(signal, name)
    process = started(tmp_path, preexec_fn=lambda: signal.signal(number, signal.SIG_IGN))
    with process:
        process.send_signal(number)
        time.sleep(0.5)
        ended = process.poll()
        process.kill()
    assert ended is None


@pytest.mark.skipif(sys.platform == "win32", reason="signals of this kind are Unix's")
@pytest.mark.parametrize("pause", [0.0, 0.002])
def test_many_ctrl_cs_are_one_line(pause, tmp_path):
    process = started(tmp_path)
    for _ in range(10):
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert re.fullmatch(r"numpyvit: .*\n", err), err
    assert main(["train", "--resume", str(tmp_path / "run"), "--epochs", "1"]) == 2  # intact


def test_info_about_recipes(capsys):
    code, out, _ = call(capsys, "info", "--recipe", "list")
    assert code == 0
    assert [line.split()[0] for line in out] == list(catalogue)
    assert "99.55 %" in next(line for line in out if line.startswith("mnist-best"))
    code, out, _ = call(capsys, "info", "--recipe", "cifar10-best")
    assert code == 0
    assert "86.38 %" in out[0]
    assert "numpyvit train --recipe cifar10-best" in out
    settings = {line.split()[0]: line.split()[1] for line in out if line.startswith("  --")}
    assert (settings["--epochs"], settings["--patch-dropout"]) == ("45", "0.75")
    assert len(settings) == len(dataclasses.fields(Recipe))
    assert "did you mean 'mnist'" in refused(capsys, "info", "--recipe", "mnst")
    assert "needs one of" in refused(capsys, "info", "--recipe", "mnist", "--preset", "mnist")
    assert "--time is for a model" in refused(capsys, "info", "--recipe", "mnist", "--time")


def test_help_and_version(capsys):
    for args, text in (
        (["--help"], "train|evaluate|predict|info"),
        (["train", "--help"], "--micro-batch"),
        (["--version"], "numpyvit 0.2.0"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(args)
        assert stop.value.code == 0
        assert text in capsys.readouterr().out


def test_help_lists_the_exit_codes(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    codes = re.findall(r"^  (\d+)  +\w", capsys.readouterr().out, re.M)
    assert codes == ["0", "1", "2", "130", "143"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_each_command_describes_it_and_gives_an_example_that_parses(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    usage, description, *_, epilog = capsys.readouterr().out.strip().split("\n\n")
    assert usage.startswith(f"usage: numpyvit {command} ")
    assert description.endswith(".")
    example = " ".join(epilog.split()).removeprefix("Example: numpyvit ")
    assert make_parser().parse_args(example.split()).command == command


def test_training_goes_on_past_broken_images_and_says_so_at_the_end(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(6):
            image = Image.fromarray(rng.integers(0, 256, (8, 8), np.uint8))
            image.save(tmp_path / "mine" / name / f"{i}.png")
    (tmp_path / "mine" / "dog" / "broken.png").write_bytes(b"\x89PNG")
    run = tmp_path / "run"
    options = ["--epochs", "1", "--image-size", "8", "--out", str(run), "--quiet"]
    assert main(["train", "--data", str(tmp_path / "mine"), *options]) == 1
    err = capsys.readouterr().err
    assert "left out images that cannot be read (1): dog/broken.png" in err
    assert len(err.splitlines()) == 1
    assert (run / "model.npz").exists()
    assert main(["train", "--resume", str(run)]) == 1
    assert "left out" in capsys.readouterr().out
    (tmp_path / "mine" / "dog" / "broken.png").unlink()
    assert main(["train", "--resume", str(run)]) == 0
