"""gRPC: one port, and a file for each service that is spoken over it.

Nothing of it is imported before `--grpc-port` asks for it: its libraries are an extra.
"""
