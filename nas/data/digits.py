"""1,797 handwritten digits of 8 x 8 (Alpaydin, Kaynak 1998), which come with scikit-learn."""

from nas.data import installed_images
from nas.errors import UserError

_SHA256 = "09f66e6debdee2cd2b5ae59e0d6abbb73fc2b0e0185d2e1957e9ebb51e23aa22"


def read(raw_dir: str | None, data_dir: str | None) -> dict:
    """{split: (images uint8 [n, 8, 8, 1], labels [n])}.

    Raises:
      UserError: as `installed_images.read`, or a `raw_dir` is given.
    """
    del data_dir  # nothing is prepared
    if raw_dir:
        raise UserError("the data source digits comes with the installation and takes no --raw_dir")
    file = "sklearn/datasets/data/digits.csv.gz"
    return installed_images.read("scikit-learn", file, _SHA256, side=8, largest=16)
