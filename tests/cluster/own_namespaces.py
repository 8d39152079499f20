"""Starts a Ray node and waits for ever: `python -m tests.cluster.own_namespaces ARGUMENTS_AS_JSON`.

`RayCluster.add_apart` runs it in namespaces of its own, as if it were another machine.
"""

import json
import sys
import threading

from cluster.ray_environment import before_import
from tests.cluster.patient_ray import patient

if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    before_import(arguments["gcs_address"])
    from ray._private.node import Node
    from ray._private.parameter import RayParams

    with patient():
        node = Node(RayParams(**arguments), head=False, shutdown_at_exit=True, spawn_reaper=True)
    threading.Event().wait()
