"""A machine that speaks to a collector by gRPC's own implementation, well and badly.

It shares nothing with the product but the .proto file. Each line of standard input names a case
of `CASES`; each is answered by one line of JSON: `code` is the gRPC status that this side sees,
`reason` the collector's own, `details` its sentence, `answer` what was answered to a call that
went well. The first argument is a JSON file with what a machine needs to know, see `Place`.
"""

import json
import sys
import time
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message
from haidang.v1 import haidang_pb2 as wire
from haidang.v1 import haidang_pb2_grpc as services

# Anything that is waited for on one machine; a deadline that passes is a case of its own.
DEADLINE_S = 20.0
SHORT_S = 0.5
# Calls that the collector takes at once on one connection, and calls of which most wait here.
AT_ONCE = 8
CROWD = 1_000
# The collector takes messages of 4 MiB and headers of 8 KiB.
OVERSIZED_BYTES = 5 << 20
METADATA_BYTES = 64 << 10
# A number that no field of a report has.
UNKNOWN_FIELD = 2_000

Answer = dict[str, Any]


@dataclass(frozen=True)
class Place:
    """What the machine knows. Listeners are `host:port`; the others are files, or hexadecimal."""

    reporting: str
    enrolment: str
    # The address that the collector's certificate names: the machine may come through a relay.
    name: str
    ca: str
    token_id: str
    token_secret: str
    foreign_chain: str
    foreign_key: str
    # An agency that the machine does not belong to.
    other_agency: str


@dataclass(frozen=True)
class Identity:
    """A certificate chain with its key, as PEM."""

    chain: bytes
    key: bytes


class Machine:
    """One machine: its identity, its process and its journal."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.identity: Identity | None = None
        self.nonce = uuid.uuid4().bytes
        self.fingerprint = bytes(range(32))
        self.journal = uuid.uuid4().bytes
        self.sequence = 0
        self.settings_version = 0
        self.trust_bundle_version = 0
        self.channel: grpc.Channel | None = None

    def connect(self, to: str, identity: Identity | None) -> grpc.Channel:
        """A channel that verifies the collector, as gRPC does it."""
        credentials = grpc.ssl_channel_credentials(
            Path(self.place.ca).read_bytes(),
            identity.key if identity else None,
            identity.chain if identity else None,
        )
        options = [
            ("grpc.ssl_target_name_override", self.place.name),
            # Otherwise channels to one address share a connection.
            ("grpc.use_local_subchannel_pool", 1),
        ]
        return grpc.secure_channel(to, credentials, options)

    def own_channel(self) -> grpc.Channel:
        """The connection that the machine reports over, always the same."""
        if self.channel is None:
            assert self.identity, "it has not enrolled"
            self.channel = self.connect(self.place.reporting, self.identity)
        return self.channel

    def reporting(self) -> services.ReportingServiceStub:
        return services.ReportingServiceStub(self.own_channel())

    def request(self) -> bytes:
        """A request for a certificate."""
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        signed = builder.sign(self.key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.DER)

    def keep(self, chain_der: list[bytes]) -> None:
        """Presents a chain from now on."""
        pem = [
            x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
            for der in chain_der
        ]
        key = self.key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        self.identity = Identity(b"".join(pem), key)
        self.channel = None

    def report_of_health(self) -> wire.ReportRequest:
        """The next report: all is well."""
        self.sequence += 1
        verdict = wire.Verdict(state=wire.PATH_STATE_CONNECTED)
        return wire.ReportRequest(
            process_nonce=self.nonce,
            machine_fingerprint=self.fingerprint,
            sequence=self.sequence,
            sent_unix_ms=now_ms(),
            agent_version="independent",
            settings_version=self.settings_version,
            trust_bundle_version=self.trust_bundle_version,
            connectivity=wire.Connectivity(
                verdict=verdict, verdict_age_ms=60_000, quality=wire.Quality(loss_runs=[0] * 5)
            ),
            journal=wire.JournalStatus(),
        )

    def call_raw(self, method: str, message: bytes, **options: Any) -> Answer:
        """Calls a method of the reporting service with any bytes as its message."""
        call = self.own_channel().unary_unary(
            f"/haidang.v1.ReportingService/{method}",
            request_serializer=None,
            response_deserializer=wire.ReportResponse.FromString,
        )
        return told(lambda: call(message, timeout=DEADLINE_S, **options))


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def told(call: Callable[[], Message]) -> Answer:
    """How a call ended, as this side sees it."""
    try:
        answer = call()
    except grpc.RpcError as error:
        metadata = dict(error.trailing_metadata() or ())
        return {
            "code": error.code().name,
            "reason": metadata.get("haidang-reason"),
            "details": error.details(),
        }
    return {"code": "OK", "answer": MessageToDict(answer)}


# ------------------------------------------------------------------ well


def enrol(machine: Machine) -> Answer:
    """Redeems the code with a key of its own."""
    request = wire.EnrolRequest(
        token_id=machine.place.token_id,
        token_secret=bytes.fromhex(machine.place.token_secret),
        csr_der=machine.request(),
        machine_fingerprint=machine.fingerprint,
        hostname="independent",
    )
    with machine.connect(machine.place.enrolment, None) as channel:
        stub = services.EnrolmentServiceStub(channel)

        def call() -> Message:
            answer = stub.Enrol(request, timeout=DEADLINE_S)
            machine.keep(list(answer.certificate_chain_der))
            return answer

        return told(call)


def report(machine: Machine) -> Answer:
    """Reports, and takes the settings and roots that come with the answer."""

    def call() -> Message:
        answer = machine.reporting().Report(machine.report_of_health(), timeout=DEADLINE_S)
        if answer.HasField("settings"):
            machine.settings_version = answer.settings.version
        if answer.HasField("trust_bundle"):
            machine.trust_bundle_version = answer.trust_bundle.version
        return answer

    return told(call)


def deliver(machine: Machine) -> Answer:
    """Delivers the start of the process and one check's answer: always the same two records."""
    boot, at_ms = machine.journal, 1_700_000_000_000
    started = wire.Started(agent_version="independent")
    result = wire.CheckResult(
        check=wire.POSTURE_CHECK_SCREEN_LOCK,
        verdict=wire.CHECK_VERDICT_FAIL,
        reason=wire.CHECK_REASON_ABSENT,
        observed="told by another implementation",
    )
    posture = wire.PostureSnapshot(
        full=True,
        catalogue_version=1,
        machine=wire.MACHINE_KIND_SERVER,
        results=[result],
        measures=wire.PostureMeasures(),
    )
    records = [
        wire.Record(seq=1, boot_id=boot, at_boottime_ms=1, at_unix_ms=at_ms, started=started),
        wire.Record(seq=2, boot_id=boot, at_boottime_ms=2, at_unix_ms=at_ms, posture=posture),
    ]
    request = wire.DeliverRequest(journal_id=machine.journal, first_seq=1, records=records)
    return told(lambda: machine.reporting().Deliver(request, timeout=DEADLINE_S))


def renew(machine: Machine) -> Answer:
    """Gets a fresh certificate for the same key, and reports with it from now on."""

    def call() -> Message:
        request = wire.RenewRequest(csr_der=machine.request())
        answer = machine.reporting().Renew(request, timeout=DEADLINE_S)
        machine.keep(list(answer.certificate_chain_der))
        return answer

    return told(call)


def goodbye(machine: Machine) -> Answer:
    """Says that it stops for a shutdown."""
    request = wire.GoodbyeRequest(
        reason=wire.GOODBYE_REASON_SHUTDOWN, process_nonce=machine.nonce
    )
    return told(lambda: machine.reporting().Goodbye(request, timeout=DEADLINE_S))


def claim_another_agency(machine: Machine) -> Answer:
    """Names another agency in a field that no report has, and in the metadata."""
    other = machine.place.other_agency.encode()
    key = UNKNOWN_FIELD << 3 | 2
    field = bytes([key & 0x7F | 0x80, key >> 7, len(other)]) + other
    message = machine.report_of_health().SerializeToString() + field
    claims = [("agency", other.decode()), ("x-forwarded-for", "127.18.12.1")]
    return machine.call_raw("Report", message, metadata=claims)


# ------------------------------------------------------------------ badly


def no_certificate(machine: Machine) -> Answer:
    with machine.connect(machine.place.reporting, None) as channel:
        stub = services.ReportingServiceStub(channel)
        return told(lambda: stub.Report(machine.report_of_health(), timeout=DEADLINE_S))


def foreign_certificate(machine: Machine) -> Answer:
    place = machine.place
    foreign = Identity(
        Path(place.foreign_chain).read_bytes(), Path(place.foreign_key).read_bytes()
    )
    with machine.connect(place.reporting, foreign) as channel:
        stub = services.ReportingServiceStub(channel)
        return told(lambda: stub.Report(machine.report_of_health(), timeout=DEADLINE_S))


def unknown_enum(machine: Machine) -> Answer:
    message = machine.report_of_health()
    # Proto3 enums are open: any number goes onto the wire.
    message.connectivity.verdict.state = 99
    return machine.call_raw("Report", message.SerializeToString())


def truncated(machine: Machine) -> Answer:
    return machine.call_raw("Report", machine.report_of_health().SerializeToString()[:-3])


def oversized(machine: Machine) -> Answer:
    message = machine.report_of_health()
    message.agent_version = "v" * OVERSIZED_BYTES
    return machine.call_raw("Report", message.SerializeToString())


def compressed(machine: Machine) -> Answer:
    message = machine.report_of_health()
    # gRPC leaves alone what would not become shorter.
    message.agent_version = "v" * 1000
    packed = grpc.Compression.Gzip
    return machine.call_raw("Report", message.SerializeToString(), compression=packed)


def wrong_method(machine: Machine) -> Answer:
    return machine.call_raw("Command", machine.report_of_health().SerializeToString())


def wrong_service(machine: Machine) -> Answer:
    """Asks the reporting listener to enrol somebody."""
    stub = services.EnrolmentServiceStub(machine.own_channel())
    return told(lambda: stub.Enrol(wire.EnrolRequest(), timeout=DEADLINE_S))


def huge_metadata(machine: Machine) -> Answer:
    message = machine.report_of_health().SerializeToString()
    return machine.call_raw("Report", message, metadata=[("huge", "x" * METADATA_BYTES)])


def impatient(machine: Machine) -> Answer:
    """Reports to a collector that does not answer in time; all have to end at their deadline."""
    call = machine.reporting().Report.future
    calls = [call(machine.report_of_health(), timeout=SHORT_S) for _ in range(AT_ONCE)]
    answers = [told(one.result) for one in calls]
    others = [answer for answer in answers if answer["code"] != "DEADLINE_EXCEEDED"]
    return others[0] if others else answers[0]


def crowd(machine: Machine) -> Answer:
    """A thousand reports at once on one connection; answers how many ended how."""
    call = machine.reporting().Report.future
    calls = [call(machine.report_of_health(), timeout=DEADLINE_S) for _ in range(CROWD)]
    answers = [told(one.result) for one in calls]
    ends = Counter(answer.get("reason") or answer["code"] for answer in answers)
    return {"code": "OK", "answer": dict(ends)}


CASES: dict[str, Callable[[Machine], Answer]] = {
    case.__name__: case
    for case in (
        enrol,
        report,
        deliver,
        renew,
        goodbye,
        claim_another_agency,
        no_certificate,
        foreign_certificate,
        unknown_enum,
        truncated,
        oversized,
        compressed,
        wrong_method,
        wrong_service,
        huge_metadata,
        impatient,
        crowd,
    )
}


def main() -> None:
    machine = Machine(Place(**json.loads(Path(sys.argv[1]).read_text())))
    for line in sys.stdin:
        answer = CASES[line.strip()](machine)
        print(json.dumps(answer), flush=True)


main()
