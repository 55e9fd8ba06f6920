"""A stock gRPC client: grpcio, and the published .proto files.

client.py PROTO_DIR HOST:PORT CA_FILE USER PASSWORD_FILE

Prints one JSON object: the services that reflection names, the nodes, what the first messages of a watch were.
"""

import importlib
import json
import pathlib
import sys
import tempfile

import grpc
import grpc_tools.protoc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase


def generate(protos, into):
    # The well-known types that the contract imports come with the tools.
    bundled = pathlib.Path(grpc_tools.__file__).parent / "_proto"
    files = sorted(str(path) for path in pathlib.Path(protos).rglob("*.proto"))
    outcome = grpc_tools.protoc.main(
        ["protoc", f"-I{protos}", f"-I{bundled}", f"--python_out={into}", f"--grpc_python_out={into}", *files]
    )
    if outcome != 0:
        raise SystemExit("the .proto files do not compile")
    sys.path.insert(0, into)


def module(name):
    return importlib.import_module(f"horcrux.v1.{name}")


def main():
    protos, address, ca_file, user, password_file = sys.argv[1:]
    with tempfile.TemporaryDirectory() as generated:
        generate(protos, generated)
        print(json.dumps(talk(address, ca_file, user, password_file)))


def talk(address, ca_file, user, password_file):
    credentials = grpc.ssl_channel_credentials(pathlib.Path(ca_file).read_bytes())
    with grpc.secure_channel(address, credentials) as channel:
        auth = module("auth_service_pb2_grpc").AuthServiceStub(channel)
        password = pathlib.Path(password_file).read_text().strip()
        request = module("auth_service_pb2").SignInRequest(username=user, password=password)
        tokens = auth.SignIn(request, timeout=10).tokens
        metadata = [("authorization", f"Bearer {tokens.access_token}")]

        with_token = grpc.intercept_channel(channel, Bearer(metadata))
        services = ProtoReflectionDescriptorDatabase(with_token).get_services()

        node_pb = module("node_service_pb2")
        nodes = module("node_service_pb2_grpc").NodeServiceStub(channel)
        listed = nodes.List(node_pb.NodeServiceListRequest(), timeout=10, metadata=metadata)
        denied = None
        try:
            nodes.List(node_pb.NodeServiceListRequest(), timeout=10)
        except grpc.RpcError as error:
            denied = error.code().name

        watch = module("watch_service_pb2_grpc").WatchServiceStub(channel)
        stream = watch.Watch(module("watch_service_pb2").WatchRequest(), timeout=30, metadata=metadata)
        kinds = []
        for message in stream:
            kinds.append(message.WhichOneof("message"))
            if kinds.count("changes") == 3:
                break
        stream.cancel()
    return {
        "services": sorted(services),
        "nodes": [node.name for node in listed.nodes],
        "without_token": denied,
        "watched": kinds,
    }


class Bearer(grpc.StreamStreamClientInterceptor):
    """Reflection's client takes no metadata of its own."""

    def __init__(self, metadata):
        self.metadata = metadata

    def intercept_stream_stream(self, continuation, client_call_details, request_iterator):
        details = client_call_details._replace(metadata=self.metadata)
        return continuation(details, request_iterator)


if __name__ == "__main__":
    main()
