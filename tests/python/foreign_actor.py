"""An actor in another language: all it has of Impresario is proto/impresario.proto.

Steps CartPole-v1 with the learner's weights, one unroll for each grant, until the run is over. Prints one line of JSON: what it produced
and dropped.

    python foreign_actor.py STUBS HOST:PORT

STUBS is a folder with impresario_pb2.py and impresario_pb2_grpc.py, as grpcio-tools generates them.
"""

import json
import queue
import struct
import sys
import threading

sys.path.insert(0, sys.argv[1])

import grpc
import gymnasium
import numpy as np

import impresario_pb2 as pb
import impresario_pb2_grpc as rpc

COPIES = 4
F32, U8, I32 = pb.ELEMENT_TYPE_F32, pb.ELEMENT_TYPE_U8, pb.ELEMENT_TYPE_I32


def tensor(array, dtype):
    kinds = {F32: "<f4", U8: "u1", I32: "<i4"}
    return pb.Tensor(dtype=dtype, shape=array.shape, data=np.ascontiguousarray(array, kinds[dtype]).tobytes())


def crc32c(data):
    """Castagnoli's checksum, bit by bit over a table."""
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def parameters(encoding):
    """The arrays of a safetensors file, by name."""
    (length,) = struct.unpack("<Q", encoding[:8])
    header, data = json.loads(encoding[8:8 + length]), encoding[8 + length:]
    return {
        name: np.frombuffer(data[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items() if name != "__metadata__"
    }


class Weights:
    """The newest version of the policy, as the learner streams it."""

    def __init__(self, stub, identity):
        self.version, self.arrays, self.changed = -1, None, threading.Condition()
        chunks = stub.WatchWeights(pb.WatchWeightsRequest(identity=identity))
        threading.Thread(target=self.follow, args=(chunks,), daemon=True).start()

    def follow(self, chunks):
        encoding = bytearray()
        try:
            for chunk in chunks:
                if chunk.offset == 0:
                    encoding = bytearray()
                assert chunk.offset == len(encoding), "pieces come in order"
                encoding += chunk.data
                if len(encoding) == chunk.length:
                    assert crc32c(encoding) == chunk.crc32c, "the weights are damaged"
                    with self.changed:
                        self.version, self.arrays = chunk.version, parameters(bytes(encoding))
                        self.changed.notify_all()
        except grpc.RpcError:
            pass  # The stream of unrolls says why.

    def at_least(self, version):
        with self.changed:
            if not self.changed.wait_for(lambda: self.version >= version, timeout=60):
                raise SystemExit(f"version {version} of the weights did not come")
            return self.version, self.arrays


def log_probabilities(arrays, observation):
    """Of each action at each of several observations."""
    hidden = observation.astype(np.float32)
    for layer in range(2):
        hidden = np.tanh(hidden @ arrays[f"encoder.{layer}.weight"].T + arrays[f"encoder.{layer}.bias"])
    logits = hidden @ arrays["policy.weight"].T + arrays["policy.bias"]
    logits -= logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


class Copies:
    """Copies of the environment, stepped together; an episode that ends is followed by the next one at once."""

    def __init__(self, length):
        self.length, self.random = length, np.random.default_rng(7)
        self.environments = [gymnasium.make("CartPole-v1") for _ in range(COPIES)]
        self.now = np.array([e.reset(seed=copy)[0] for copy, e in enumerate(self.environments)])
        self.returns, self.lengths = [0.0] * COPIES, [0] * COPIES

    def spec(self):
        box, limit = self.environments[0].observation_space, self.environments[0].spec.max_episode_steps
        observation = pb.Box(low=box.low, high=box.high, shape=box.shape, dtype=F32)
        return pb.EnvironmentSpec(
            id="CartPole-v1", observation=pb.Space(box=observation), action=pb.Space(discrete=2),
            max_episode_steps=limit, solved_return=475.0)

    def unroll(self, version, arrays):
        rows = {name: [] for name in ("observations", "actions", "rewards", "terminated", "truncated", "log_probs")}
        finals, episode_returns, episode_lengths = [], [], []
        for _ in range(self.length):
            log_probs = log_probabilities(arrays, self.now)
            actions = (self.random.random(COPIES) > np.exp(log_probs[:, 0])).astype(np.int32)
            rows["observations"].append(self.now.copy())
            rows["actions"].append(actions)
            rows["log_probs"].append(log_probs[np.arange(COPIES), actions])
            outcomes = [e.step(int(action)) for e, action in zip(self.environments, actions)]
            for name, field in (("rewards", 1), ("terminated", 2), ("truncated", 3)):
                rows[name].append([outcome[field] for outcome in outcomes])
            for copy, (observation, reward, terminated, truncated, _) in enumerate(outcomes):
                self.returns[copy] += reward
                self.lengths[copy] += 1
                self.now[copy] = observation
                if terminated or truncated:
                    if not terminated:
                        finals.append(observation)
                    episode_returns.append(self.returns[copy])
                    episode_lengths.append(self.lengths[copy])
                    self.returns[copy], self.lengths[copy] = 0.0, 0
                    self.now[copy] = self.environments[copy].reset()[0]
        rows["observations"].append(self.now.copy())
        array = {name: np.array(values) for name, values in rows.items()}
        return pb.Unroll(
            policy_version=version,
            observations=tensor(array["observations"], F32),
            actions=tensor(array["actions"], I32),
            rewards=tensor(array["rewards"], F32),
            terminated=tensor(array["terminated"], U8),
            truncated=tensor(array["truncated"], U8),
            behaviour_log_probs=tensor(array["log_probs"], F32),
            final_observations=tensor(np.array(finals).reshape(-1, 4), F32),
            episode_returns=episode_returns,
            episode_lengths=episode_lengths,
        )


def main():
    stub = rpc.LearnerStub(grpc.insecure_channel(sys.argv[2]))
    run = stub.Describe(pb.DescribeRequest(), timeout=60)
    configuration = json.loads(run.configuration_json)
    copies = Copies(configuration["rollout"]["unroll_length"])
    joined = stub.Join(pb.JoinRequest(
        protocol_version=run.protocol_version, description="python", environment=copies.spec(), workers=1,
        copies_per_worker=COPIES), timeout=60)
    weights = Weights(rpc.LearnerStub(grpc.insecure_channel(sys.argv[2])), joined.identity)

    up = queue.Queue()
    up.put(pb.ActorMessage(hello=pb.Hello(identity=joined.identity)))
    down = stub.StreamUnrolls(iter(up.get, None))
    granted, finished = queue.Queue(), threading.Event()

    def listen():
        try:
            for message in down:
                for grant in message.grants:
                    for index in range(getattr(grant, "from"), grant.upto):
                        granted.put((index, grant.min_version))
                if message.finished:
                    break
        finally:
            finished.set()
            granted.put(None)

    threading.Thread(target=listen, daemon=True).start()
    produced, dropped, sequence = 0, 0, 0
    steps = copies.length * COPIES
    while (grant := granted.get()) is not None:
        index, min_version = grant
        unroll = copies.unroll(*weights.at_least(min_version))
        produced += steps
        if finished.is_set():
            dropped += steps
            break
        unroll.sequence, unroll.grant = sequence, index
        unroll.progress.CopyFrom(pb.Progress(produced_steps=produced))
        up.put(pb.ActorMessage(unroll=unroll))
        sequence += 1
    progress = pb.Progress(produced_steps=produced, dropped_steps={"run_ended": dropped} if dropped else {})
    up.put(pb.ActorMessage(goodbye=pb.Goodbye(progress=progress)))
    up.put(None)
    for _ in down:
        pass
    print(json.dumps({"produced": produced, "dropped": dropped, "unrolls": sequence}))


if __name__ == "__main__":
    main()
