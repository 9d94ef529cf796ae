"""Draws the pictures of README.md into .github/assets, from data that scikit-learn brings.

python .github/draw_pictures.py        (about two minutes; it needs Chromium and pip install -e '.[demo]')
"""

import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from PIL import Image

PROJECT = Path(__file__).resolve().parent.parent
ASSETS = PROJECT / ".github" / "assets"
WIDTH, GAP = 1640, 16  # pixels
PORT = 7861


def photograph(browser: str, address: str, file: Path, width: int, height: int) -> Image.Image:
    """A page as the browser shows it, ``width`` x ``height`` pixels."""
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--virtual-time-budget=15000"]
    words = [browser, *options, f"--window-size={width},{height}", f"--screenshot={file}", address]
    subprocess.run(words, check=True, capture_output=True, timeout=120)
    return Image.open(file).convert("RGB")


def sketch_pad(browser: str, checkpoint: Path, file: Path) -> Image.Image:
    """The page that ``imgclf.demo`` serves."""
    words = [sys.executable, "-m", "imgclf.demo", f"ckpt={checkpoint}", f"port={PORT}"]
    server = subprocess.Popen(words, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(120):
            time.sleep(1)
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{PORT}", timeout=5).close()
                return photograph(browser, f"http://127.0.0.1:{PORT}", file, 640, 760)
            except OSError:
                if server.poll() is not None:
                    break
        raise RuntimeError(f"{' '.join(words)} serves no page; try it by hand")
    finally:
        server.terminate()
        server.wait()


def row(pictures: list[Image.Image]) -> Image.Image:
    """The pictures beside each other, ``WIDTH`` pixels together."""
    height = (WIDTH - GAP * (len(pictures) - 1)) / sum(picture.width / picture.height for picture in pictures)
    joined, left = Image.new("RGB", (WIDTH, round(height)), "white"), 0
    for picture in pictures:
        picture = picture.resize(
            (round(picture.width * height / picture.height), round(height)), Image.Resampling.LANCZOS
        )
        joined.paste(picture, (left, 0))
        left += picture.width + GAP
    return joined


def main() -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chrome")
    if browser is None:
        sys.exit("error: no Chromium is on the PATH: install it, for instance by apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        run, shot = Path(folder, "run"), Path(folder, "page.png")
        words = ["train.py", "trainer.max_epochs=30", "scheduler=onecycle", "optimizer.lr=3e-3", f"hydra.run.dir={run}"]
        subprocess.run([sys.executable, *words], cwd=PROJECT, check=True)
        names = ("samples", "curves", "confusion_matrix")
        pictures = [Image.open(run / "figures" / f"{name}.png").convert("RGB") for name in names]
        report = photograph(browser, (run / "report.html").as_uri(), shot, 900, 900)
        pictures += [report, sketch_pad(browser, run / "checkpoints" / "best.ckpt", shot)]
    ASSETS.mkdir(exist_ok=True)
    report.resize((720, 720), Image.Resampling.LANCZOS).quantize(128).save(ASSETS / "report.png", optimize=True)
    rows = [row(pictures[:2]), row(pictures[2:])]
    strip, top = Image.new("RGB", (WIDTH, sum(each.height for each in rows) + GAP), "white"), 0
    for each in rows:
        strip.paste(each, (0, top))
        top += each.height + GAP
    strip.quantize(128).save(ASSETS / "strip.png", optimize=True)
    for file in sorted(ASSETS.glob("*.png")):
        print(f"{file.relative_to(PROJECT)}  {file.stat().st_size // 1024} KiB")


if __name__ == "__main__":
    main()
