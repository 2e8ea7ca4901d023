"""NVFlare's FedAvg recipe without training: `large_state_recipe.py MEGABYTES SITES ROUNDS WORK`.

The client, `large_state_client.py`, sends back what it received.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(megabytes: float, sites: int, rounds: int, work: Path) -> None:
    from flare_job import network
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.recipe.sim_env import SimEnv

    recipe = FedAvgRecipe(
        name="recipe",
        model={"class_path": "monai.networks.nets.FullyConnectedNet", "args": network(megabytes)},
        min_clients=sites,
        num_rounds=rounds,
        train_script=str(Path(__file__).with_name("large_state_client.py")),
        train_args=str(work),
    )
    names = [f"site-{number}" for number in range(1, sites + 1)]
    recipe.execute(SimEnv(clients=names, num_threads=sites, workspace_root=str(work / "nvflare")))


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]))
