"""Plants faults in real images and counts how many of them `ocellus check` finds.

    plant_faults.py OCELLUS --cifar10 DIR [--images 20000] [--seed 0] [--keep DIR]
    plant_faults.py OCELLUS --photos DIR ...

Class folders are written, divided into train and test, from CIFAR-10's binary files or from photos (from each photo several
different windows of 224 to 640 pixels are cut, which do not overlap). Then faults are planted, each in images of its own:

  damaged          truncated (JPEG, PNG, GIF, WebP, BMP), empty, zeros within, overwritten bytes (JPEG, PNG), a web page, no end marker
  exact copies     within a class, across splits, across classes; the same file, or the same pixels in another format (of a JPEG, as Pillow
                   decodes it: another decoder may differ in the last bit)
  near-duplicates  JPEG again (quality 30 to 95), resized (0.5 to 2), cropped (90 to 98% of each side), each within and across splits

and what `ocellus check --json` says is compared with what was planted. A group counts as false if it joins a planted image to
one that is not its original. Real data has real duplicates: what is found before anything is planted is listed by --pairs FILE, for
only a person can tell.
"""
import argparse, io, json, random, shutil, subprocess, sys, tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("ocellus")
parser.add_argument("--cifar10", type=Path)
parser.add_argument("--photos", type=Path)
parser.add_argument("--images", type=int, default=20000)
parser.add_argument("--planted", type=int, default=200, help="images with each fault")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--keep", type=Path, help="write the images here and leave them")
parser.add_argument("--pairs", type=Path, help="write the pairs of images that were not planted")
arguments = parser.parse_args()
rng = random.Random(arguments.seed)


def cifar():
    names = (arguments.cifar10 / "batches.meta.txt").read_text().split()
    for split, files in (("train", [f"data_batch_{i}" for i in range(1, 6)]), ("test", ["test_batch"])):
        for file in files:
            data = np.fromfile(arguments.cifar10 / f"{file}.bin", np.uint8).reshape(-1, 3073)
            for number, row in enumerate(data):
                image = row[1:].reshape(3, 32, 32).transpose(1, 2, 0)
                yield split, names[row[0]], f"{file}-{number}", Image.fromarray(image)


def windows():
    """Windows of photos that do not overlap."""
    for path in sorted(arguments.photos.glob("*.jpg")):
        photo = Image.open(path).convert("RGB")
        for scale in (1.0,):
            side = rng.randint(224, 320)
            for row in range(photo.height // side):
                for column in range(photo.width // side):
                    box = (column * side, row * side, (column + 1) * side, (row + 1) * side)
                    split = "train" if rng.random() < 0.8 else "test"
                    yield split, path.stem[:1], f"{path.stem}-{row}-{column}", photo.crop(box)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


folder = arguments.keep or Path(tempfile.mkdtemp())
samples = list(cifar() if arguments.cifar10 else windows())
rng.shuffle(samples)
samples = samples[: arguments.images]
classes = sorted({label for _, label, _, _ in samples})
small = samples[0][3].width < 64
planted = {}  # path -> (fault, original path or None)
originals = {}


def write(split, label, name, suffix, data, fault=None, original=None):
    path = folder / split / label / f"{name}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    if fault:
        planted[str(path)] = (fault, original)
    return str(path)


for split, label, name, image in samples:
    suffix = "png" if small or rng.random() < 0.3 else "jpg"
    data = encoded(image, "PNG") if suffix == "png" else encoded(image, "JPEG", quality=92)
    originals[(split, label, name)] = write(split, label, name, suffix, data)


def overwritten(data, start):
    data = bytearray(data)
    for _ in range(8):
        data[rng.randrange(start, len(data) - 2)] ^= rng.randrange(1, 256)
    return bytes(data)


def zeroed(data, start):
    at = rng.randrange(start, max(start + 1, len(data) - 66))
    length = min(64, len(data) - 2 - at)
    return data[:at] + bytes(length) + data[at + length :]


def scan_of(data):
    return data.index(b"\xff\xda") + 14


def damage(image, kind):
    """A suffix, and bytes that are damaged."""
    if kind.startswith("truncated"):
        _, form = kind.split()
        data = encoded(image, {"jpg": "JPEG", "tif": "TIFF"}.get(form, form.upper()))
        return form, data[: int(len(data) * rng.uniform(0.3, 0.95))]
    if kind == "empty":
        return "jpg", b""
    if kind == "web page":
        return "jpg", b"<!DOCTYPE html><html><body>404 Not Found</body></html>"
    if kind == "no end marker":
        return "jpg", encoded(image, "JPEG", quality=90)[:-2]
    form = kind.split()[-1]
    if form == "png":
        data = encoded(image, "PNG")
        start = data.index(b"IDAT") + 6
    else:
        options = {"progressive": True} if "progressive" in kind else {}
        data = encoded(image, "JPEG", quality=90, subsampling=rng.choice([0, 2]), **options)
        start = scan_of(data)
    return form, (zeroed if kind.startswith("zeros") else overwritten)(data, start)


def near(image, kind):
    width, height = image.size
    if kind == "re-encoded":
        return "jpg", encoded(image, "JPEG", quality=rng.randint(30, 95))
    if kind == "resized":
        by = rng.uniform(0.5, 2)
        size = (max(8, round(width * by)), max(8, round(height * by)))
        image = image.resize(size, rng.choice([Image.BILINEAR, Image.BICUBIC, Image.LANCZOS]))
    elif kind == "cropped":
        kept = rng.uniform(0.90, 0.98)
        w, h = round(width * kept), round(height * kept)
        x, y = rng.randint(0, width - w), rng.randint(0, height - h)
        image = image.crop((x, y, x + w, y + h))
    return rng.choice([("png", encoded(image, "PNG")), ("jpg", encoded(image, "JPEG", quality=90))])


DAMAGE = ["truncated jpg", "truncated png", "truncated gif", "truncated webp", "truncated bmp", "empty", "zeros jpg", "zeros progressive jpg",
          "zeros png", "overwritten jpg", "overwritten progressive jpg", "overwritten png", "web page", "no end marker"]
COPIES = ["copy within a class", "copy across splits", "copy across classes", "same pixels within a class", "same pixels across splits"]
NEAR = ["re-encoded", "resized", "cropped"]
chosen = iter(rng.sample(samples, min(len(samples), arguments.planted * (len(COPIES) + 2 * len(NEAR)))))
each = min(arguments.planted, len(samples) // (len(COPIES) + 2 * len(NEAR)))
damaged = {}


def check():
    command = [arguments.ocellus, "check", str(folder), "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode not in (0, 1):
        sys.exit(f"{command}: {result.returncode}\n{result.stderr}")
    return json.loads(result.stdout)


before = check()
for kind in DAMAGE:
    for number in range(max(1, each // 4)):
        *key, image = rng.choice(samples)
        suffix, data = damage(image, kind)
        damaged[write("train", rng.choice(classes), f"{kind}-{number}", suffix, data, kind)] = originals[tuple(key)]
for kind in COPIES + [f"{kind} {where}" for kind in NEAR for where in ("within", "across splits")]:
    for number in range(each):
        split, label, name, image = next(chosen)
        source = originals[(split, label, name)]
        if "splits" in kind:
            split = "test" if split == "train" else "train"
        if "classes" in kind:
            label = rng.choice([other for other in classes if other != label])
        if kind.startswith("copy"):
            suffix, data = source.rsplit(".", 1)[1], Path(source).read_bytes()
        elif kind.startswith("same pixels"):
            suffix, data = "bmp", encoded(Image.open(source).convert("RGB"), "BMP")
        else:
            suffix, data = near(image, kind.split()[0])
        write(split, label, f"{kind.replace(' ', '_')}-{number}", suffix, data, kind, source)

report = check()

found = defaultdict(set)  # path -> kinds
joined = defaultdict(set)  # path -> paths in the same group
exact = {"leak", "contradiction", "duplicates"}
near_kinds = {"near_leak", "near_contradiction", "near_duplicates"}
components = []
for finding in report["findings"]:
    names = [sample["name"] for sample in finding["samples"]]
    for name in names:
        found[name].add(finding["kind"])
    if finding["kind"] in exact | near_kinds:
        for name in names:
            joined[name].update(names)
        if finding["kind"] in near_kinds:
            components.append(frozenset(names))

DEFECTS = {"empty", "truncated", "damaged", "not_an_image", "oversized", "unreadable"}
counts = defaultdict(lambda: [0, 0])
missed = []
for path, (fault, original) in planted.items():
    if original is None:
        hit = bool(found[path] & DEFECTS)
    elif fault.startswith(("copy", "same")):
        wanted = {"leak"} if "splits" in fault else {"contradiction"} if "classes" in fault else {"duplicates", "leak", "contradiction"}
        hit = original in joined[path] and bool(found[path] & wanted)
    else:
        hit = original in joined[path]
    counts[fault][0] += hit
    counts[fault][1] += 1
    if not hit:
        missed.append((fault, path))
good = [path for path in originals.values() if found[path] & DEFECTS]
print(f"{len(samples)} images of {'CIFAR-10' if arguments.cifar10 else 'photos'}, seed {arguments.seed}")
for fault, (hits, total) in counts.items():
    print(f"  {fault:<32} {hits:>5} of {total:<5} {100 * hits / total:6.2f}%")
near_total = [sum(counts[f"{kind} {where}"][at] for kind in NEAR for where in ("within", "across splits")) for at in (0, 1)]
print(f"  {'near-duplicates together':<32} {near_total[0]:>5} of {near_total[1]:<5} {100 * near_total[0] / max(1, near_total[1]):6.2f}%")
print(f"  good images called damaged: {len(good)} of {len(originals)}")

# Real duplicates of the data, which were found before anything was planted, count as one family; a group is false if it joins
# planted images with other families. Those that were there before are for a person to judge: --pairs FILE lists them.
first_of = {}
real = [{sample["name"] for sample in finding["samples"]} for finding in before["findings"] if finding["kind"] in exact | near_kinds]
for group in real:
    for name in group:
        first_of[name] = min(group)


def family(path):
    original = planted.get(path, (None, None))[1] or damaged.get(path) or path
    return first_of.get(original, original)


near_pairs = sum(len(group) - 1 for group in set(components))
wrong = [sorted(group) for group in set(components) if len({family(path) for path in group}) > 1]
print(f"  pairs that were planted or real: {near_pairs}; groups that join different images: {len(wrong)} ({100 * len(wrong) / max(1, near_pairs):.2f}% of pairs)")
print(f"  groups of copies in the data itself, for a person to judge: {len(real)} ({sum(map(len, real))} images of {len(originals)})")
for fault, path in missed[:20]:
    print(f"  missed: {fault}: {path}")
for group in wrong[:10]:
    print("  joined:", *group)
if arguments.pairs:
    arguments.pairs.write_text(json.dumps({"joined": wrong, "real": [sorted(group) for group in real]}, indent=1))
if not arguments.keep:
    shutil.rmtree(folder)
