"""Makes the small Parquet and .npz files that the tests read: python3 reference/data_fixtures.py (pyarrow, numpy, Pillow)."""
import io, json, pathlib, zipfile
import numpy, pyarrow, pyarrow.parquet
from PIL import Image

folder = pathlib.Path(__file__).parent.parent / "crates/ocellus/tests/data/fixtures"
folder.mkdir(exist_ok=True)


def png(value):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), value).save(buffer, "PNG")
    return buffer.getvalue()


def table(count, labels, named):
    images = [{"bytes": png(10 * i), "path": f"{i}.png"} for i in range(count)]
    schema = pyarrow.schema([
        ("image", pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])),
        ("note", pyarrow.list_(pyarrow.int32())),
        ("label", pyarrow.int64() if named else pyarrow.string()),
    ])
    if named:
        features = {"label": {"names": ["cat", "bird", "ant"], "_type": "ClassLabel"}}
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    notes = [[i, i + 1] for i in range(count)]
    return pyarrow.table({"image": images, "note": notes, "label": labels}, schema)


labels = [i % 3 for i in range(20)]
write = pyarrow.parquet.write_table
write(table(20, labels, True), folder / "train-snappy.parquet", row_group_size=7)
write(table(20, labels, True), folder / "test-plain.parquet", compression="none", use_dictionary=False, data_page_size=200, write_batch_size=2)
write(table(20, labels, True), folder / "gzip-v2.parquet", compression="gzip", data_page_version="2.0")
write(table(6, ["b", "a", None, "b", "a", "b"], False), folder / "text.parquet", use_dictionary=["label"])
write(table(20, labels, True), folder / "zstd.parquet", compression="zstd")

images = (numpy.arange(6)[:, None, None] * numpy.ones((6, 4, 5))).astype("uint8")
numpy.savez_compressed(folder / "grey.npz",
    train_images=images, train_labels=numpy.array([[0], [1], [2], [0], [1], [2]], "uint8"),
    val_images=images[:2], val_labels=numpy.array([[1], [2]], "uint8"),
    test_images=images[:3], test_labels=numpy.array([[0], [1], [2]], "uint8"))
colour = numpy.stack([images, images + 1, images + 2], -1)
numpy.savez(folder / "colour.npz", x_train=colour, y_train=numpy.arange(6) % 2, x_test=colour[:1], y_test=numpy.array([1]))
