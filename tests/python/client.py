"""A program of another language on casd's socket: stubs from the proto files alone, nothing of casd's own.

    client.py SOCKET STUBS PROTO...

Generates the stubs into STUBS, then adds, lists, fetches, reads, provokes an error and asks reflection. Prints one
line a step; ends with 1 and a trace at the first step that fails.
"""

import hashlib
import importlib
import os
import sys

import grpc
from grpc_tools import protoc

MIB = 1 << 20


def generate(stubs, folders):
    """Makes importable modules of all proto files below the folders."""
    files = [
        os.path.join(where, name)
        for folder in folders
        for where, _, names in os.walk(folder)
        for name in names
        if name.endswith(".proto")
    ]
    arguments = ["protoc", *(f"-I{folder}" for folder in folders)]
    arguments += [f"--python_out={stubs}", f"--grpc_python_out={stubs}", *files]
    assert protoc.main(arguments) == 0, f"the stubs could not be generated from {files}"
    sys.path.insert(0, stubs)


def add(objects, pb, name, data):
    """Adds bytes as one object, in messages of a MiB."""

    def parts():
        yield pb.AddRequest(start=pb.AddStart(name=name, length=len(data)))
        for at in range(0, len(data), MIB):
            yield pb.AddRequest(data=pb.AddData(data=data[at : at + MIB]))
        yield pb.AddRequest(finish=pb.AddFinish(length=len(data)))

    return objects.Add(parts()).object


def fetch(objects, pb, object_id):
    """Fetches an object whole; its pieces come in any order, each with its offset."""
    data, started, finished = None, None, None
    for event in objects.Fetch(pb.FetchRequest(id=object_id)):
        part = event.WhichOneof("event")
        if part == "started":
            started, data = event.started, bytearray(event.started.size)
        elif part == "data":
            data[event.data.offset : event.data.offset + len(event.data.data)] = event.data.data
        elif part == "finished":
            finished = event.finished
    assert started.id == object_id and finished.size == len(data)
    return bytes(data)


def refused(call, code):
    """Makes a call that must fail with this code, and gives its error's details."""
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == code, f"{error.code()}: {error.details()}"
        return error
    raise AssertionError(f"expected {code}")


def main():
    socket, stubs, *folders = sys.argv[1:]
    generate(stubs, folders)
    objects_pb = importlib.import_module("casd.v1.objects_pb2")
    node_pb = importlib.import_module("casd.v1.node_pb2")
    objects_grpc = importlib.import_module("casd.v1.objects_pb2_grpc")
    node_grpc = importlib.import_module("casd.v1.node_pb2_grpc")
    reflection_pb = importlib.import_module("reflection_pb2")
    reflection_grpc = importlib.import_module("reflection_pb2_grpc")

    # C-based libraries send the socket's path as the authority, which is not a valid one.
    channel = grpc.insecure_channel(f"unix:{socket}", options=[("grpc.default_authority", "localhost")])
    grpc.channel_ready_future(channel).result(timeout=30)
    objects = objects_grpc.ObjectsStub(channel)

    status = node_grpc.NodeStub(channel).Status(node_pb.StatusRequest())
    assert status.ready and status.peer_id
    print(f"status: {status.peer_id}")

    # Bytes that two runs share and that do not compress.
    data = b"".join(hashlib.sha512(str(block).encode()).digest() for block in range(40_000))
    added = add(objects, objects_pb, "from-python", data)
    assert added.created and added.size == len(data) and len(added.id) == 64
    assert not add(objects, objects_pb, "from-python", data).created
    print(f"added: {added.id}")

    listed = [entry for page in objects.List(objects_pb.ListRequest()) for entry in page.objects]
    assert [(entry.id, entry.name, entry.size) for entry in listed] == [(added.id, "from-python", len(data))]
    print("listed")

    assert fetch(objects, objects_pb, added.id) == data
    print("fetched")
    ranged = objects.Cat(objects_pb.CatRequest(object="from-python", offset=MIB - 1, length=MIB + 2))
    assert b"".join(part.data for part in ranged) == data[MIB - 1 : 2 * MIB + 1]
    print("read a range")

    refused(lambda: objects.Stat(objects_pb.StatRequest(object="0" * 64)), grpc.StatusCode.NOT_FOUND)
    wrong = objects_pb.FetchRequest(id="XYZ")
    refused(lambda: list(objects.Fetch(wrong)), grpc.StatusCode.INVALID_ARGUMENT)
    cut = [objects_pb.AddRequest(start=objects_pb.AddStart(name="cut"))]
    cut.append(objects_pb.AddRequest(data=objects_pb.AddData(data=b"half")))
    refused(lambda: objects.Add(iter(cut)), grpc.StatusCode.INVALID_ARGUMENT)
    print("refused")

    reflection = reflection_grpc.ServerReflectionStub(channel)
    question = reflection_pb.ServerReflectionRequest(list_services="")
    answer = next(reflection.ServerReflectionInfo(iter([question])))
    services = {service.name for service in answer.list_services_response.service}
    wanted = {"casd.v1.Objects", "casd.v1.Node", "casd.v1.Network", "grpc.health.v1.Health"}
    assert wanted <= services, f"{wanted - services} missing from {services}"
    print(f"services: {', '.join(sorted(services))}")


if __name__ == "__main__":
    main()
