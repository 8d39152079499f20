"""What stands between the network and the routes: connections, hosts, origins, keys, bodies."""
