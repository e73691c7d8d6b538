"""``python -m torch_ref state CONFIG``: what the weights of a configuration must look like, for programs that import no framework."""
import argparse
import json

from jt_nanodet.config import load_config
from jt_nanodet.weight_rules import TRAINING_ONLY

from .detector import build_model


def main(argv):
    parser = argparse.ArgumentParser(prog="python -m torch_ref state", description="Names, shapes and types of a configuration's weights, as JSON.")
    parser.add_argument("config", metavar="CONFIG")
    parser.add_argument("--json", action="store_true", help="accepted for clarity; JSON is all there is")
    args = parser.parse_args(argv)
    state = build_model(load_config(args.config).model.arch).state_dict()
    keys = [[name, list(t.shape), str(t.dtype).removeprefix("torch.")] for name, t in state.items()]
    print(json.dumps({"keys": keys, "training_only_prefixes": list(TRAINING_ONLY)}))
    return 0
