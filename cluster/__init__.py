"""The engine's workers on every GPU of a Ray cluster.

    main process          bridge process            one agent per node
    ClusterBackend  <-->  Bridge (Ray's driver) <-->  Agent (an actor)  <-->  worker processes
                          one Relay per node          NodeWorkers, LocalBackend

Main speaks to the bridge over a pair of sockets and never imports Ray, which replaces signal
handlers, prints, and ends its process when the cluster's head is lost. Where a bridge ends, main's
LastingLink starts the next one. Only `join`, `relay`, `ray_state`, `holders`, `agent` and, in
functions, `bridge` import Ray.
"""
