"""The arms of every table and study: what is compared, as settings of one search. The one registry of them.

An arm that is not here does not appear in any table. Yardsticks that are not controllers (random projections) need no run and
are computed by the evaluation.
"""

import dataclasses
from typing import Any

from nas import config
from nas.config import Config


@dataclasses.dataclass(frozen=True)
class Arm:
    """Settings that make a configuration an arm.

    Attributes:
      title: its name in tables.
      settings: group of the configuration -> field -> value.
    """

    title: str
    settings: dict[str, dict[str, Any]]

    def configure(self, base: Config, seed: int) -> Config:
        """`base` as this arm, with a seed."""
        values = dataclasses.asdict(base) | {"seed": seed}
        for group, fields in self.settings.items():
            values[group] = values[group] | fields
        return config.from_dict(values)


ARMS = {
    "pg": Arm("PG only", {"strategy": {"supervised_weight": 0.0}}),
    "memory": Arm("PG + memory", {"strategy": {"supervised_weight": 1.0, "supervised": "reconstruct"}}),
}
