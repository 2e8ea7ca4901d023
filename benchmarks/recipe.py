"""NVFlare's FedAvg recipe, a client written by hand: `recipe.py DATA SITES ROUNDS EPOCHS WORK`.

It validates the received and the local model like the other arms; NVFlare's recipe evaluates no
model at other sites, and scores no last model, so it does less than they do.
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(data: Path, sites: int, rounds: int, epochs: int, work: Path) -> None:
    here = Path(__file__).resolve().parent
    sys.path.insert(0, str(here))
    from by_hand import NETWORK
    from nvflare.app_opt.pt.recipes.fedavg import FedAvgRecipe
    from nvflare.recipe.sim_env import SimEnv

    recipe = FedAvgRecipe(
        name="recipe",
        model={"class_path": "monai.networks.nets.UNet", "args": NETWORK},
        min_clients=sites,
        num_rounds=rounds,
        train_script=str(here / "recipe_client.py"),
        train_args=f"{data} {epochs} {work}",
        key_metric="val_mean_dice",
    )
    names = [f"site-{number}" for number in range(1, sites + 1)]
    recipe.execute(SimEnv(clients=names, num_threads=sites, workspace_root=str(work / "nvflare")))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:5]), Path(sys.argv[5]))
