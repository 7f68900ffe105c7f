"""Draws docs/diffusion.png: what `quern diffuse` makes of some captions with the committed model, one picture a caption.

Run: .venv-diffusion/bin/python tools/train_diffusion/sheet.py QUERN docs/diffusion.png
"""
import pathlib
import subprocess
import sys
import tempfile

from PIL import Image, ImageDraw

CAPTIONS = [
    "a red circle left of a blue square", "a blue square above a yellow triangle", "a green triangle right of a purple circle",
    "a black square below a red triangle", "a yellow circle left of a green square", "a purple triangle",
]
SIDE, MARGIN, LINE = 192, 8, 40


def main() -> None:
    quern, output = sys.argv[1:]
    sheet = Image.new("RGB", (3 * (SIDE + MARGIN) + MARGIN, 2 * (SIDE + LINE + MARGIN) + MARGIN), (225, 225, 225))
    pen = ImageDraw.Draw(sheet)
    with tempfile.TemporaryDirectory() as folder:
        for index, caption in enumerate(CAPTIONS):
            picture = pathlib.Path(folder) / f"{index}.png"
            subprocess.run([quern, "diffuse", "--model", "Models/shapes", "--prompt", caption, "--steps", "20", "--guidance", "2",
                            "--seed", "1", "--output", picture], check=True)
            x, y = MARGIN + index % 3 * (SIDE + MARGIN), MARGIN + index // 3 * (SIDE + LINE + MARGIN)
            sheet.paste(Image.open(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS), (x, y))
            half = caption.find(" a ", 2)
            text = caption if half < 0 else caption[:half] + "\n" + caption[half + 1:]
            pen.multiline_text((x + SIDE / 2, y + SIDE + 4), text, fill=(0, 0, 0), anchor="ma", align="center", font_size=13)
    sheet.save(output, optimize=True)


main()
