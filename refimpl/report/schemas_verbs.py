"""JSON Schemas of what the verbs about hosts, networks, VMs, labs and the machine print with --json, and of errors.

They refuse what they do not name: whatever is added to one raises its version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from refimpl.backends.libvirt.mend_leases import Did
from refimpl.guest import GuestParameters
from refimpl.lab.shelf import LabState
from refimpl.model.errors import Problem
from refimpl.model.phase import ExitCode
from refimpl.model.request import PerformanceOption, VmState
from refimpl.model.settings import Authentication
from refimpl.report.schema_parts import (
    COUNT,
    NUMBER,
    TEXT,
    YES_NO,
    Definitions,
    Schema,
    closed,
    list_of,
    object_of,
    one_of,
    or_null,
)


def _published(name: str, title: str, schema: Schema) -> Schema:
    made: Schema = closed(Definitions().document(name, 1, title, schema))
    return made


def _by_host(schema: Schema) -> Schema:
    return {"type": "object", "description": "by the host's name", "additionalProperties": schema}


def _networks() -> Schema:
    return list_of(object_of(Subnet={**TEXT, "description": "CIDR"}, Priority=COUNT))


def _host_settings_schema() -> Schema:
    settings = object_of(
        VirtualMachineMigrationEnabled=YES_NO,
        MaximumVirtualMachineMigrations=COUNT,
        MaximumStorageMigrations=COUNT,
        VirtualMachineMigrationAuthenticationType=one_of(Authentication),
        VirtualMachineMigrationPerformanceOption=one_of(PerformanceOption),
        UseAnyNetworkForMigration=YES_NO,
        MigrationNetworks=_networks(),
        PreCopyPassLimit=COUNT,
        UnexpectedBlackoutMs=COUNT,
        Fence=object_of(agent=TEXT, options=TEXT, tried_ns=or_null(COUNT)),
    )
    whole = {"oneOf": [_by_host(settings), {**settings, "description": "Those of the host that was set."}]}
    return _published("host-settings", "What refimpl host get --json and host set --json print", whole)


def _fence_tried_schema() -> Schema:
    tried_ns = {**COUNT, "description": "nanoseconds since the epoch"}
    title = "What refimpl host try-fence --json prints: the fence that answered, and when"
    return _published("fence-tried", title, object_of(host=TEXT, fence=TEXT, tried_ns=tried_ns))


def _migration_networks_schema() -> Schema:
    title = "What refimpl network list, add, set and remove print with --json: networks of hosts, best first"
    return _published("migration-networks", title, _by_host(_networks()))


def _vm() -> Schema:
    return object_of(
        name=TEXT,
        id=TEXT,
        host=TEXT,
        state=one_of(VmState),
        memory_mib=COUNT,
        vcpus=COUNT,
        lease_held={**or_null(YES_NO), "description": "null: there is none, or it cannot be seen"},
        lease={**or_null(TEXT), "description": "the file of the lease"},
        operation={**or_null(TEXT), "description": "the move that has marked it"},
        address=or_null(TEXT),
        forwards=list_of(_forward(up=YES_NO)),
    )


def _vm_list_schema() -> Schema:
    host = object_of(host=TEXT, reachable=YES_NO, says={**or_null(TEXT), "description": "why it does not answer"})
    whole = object_of(hosts=list_of(host), vms=list_of(_vm()))
    return _published("vm-list", "What refimpl vm list --json prints", whole)


def _vm_schema() -> Schema:
    settings = object_of(
        processor_compatibility=YES_NO,
        firmware={"enum": ["bios", "uefi"]},
        disks=list_of(TEXT),
        dvd=or_null(TEXT),
        adapters=list_of(object_of(number=COUNT, mac=TEXT, switch=or_null(TEXT))),
        guest={"enum": ["own", "built-in", None], "description": "null: not made here"},
        accelerator=or_null(TEXT),
    )
    vm = object_of(**_vm()["properties"], **settings["properties"])
    return _published("vm", "What refimpl vm show --json prints", object_of(vm=vm))


def _forward(**more: Schema) -> Schema:
    return object_of(port=COUNT, guest_port=COUNT, **more)


def _vm_created_schema() -> Schema:
    known = Definitions()
    made = object_of(
        "What is kept of it beside its disks.",
        name=TEXT,
        id=TEXT,
        address={**or_null(TEXT), "description": "of its guest, with the prefix length"},
        memory_mib=COUNT,
        vcpus=COUNT,
        accelerator={"enum": ["kvm", "tcg"]},
        parameters={**or_null(known.of(GuestParameters)), "description": "the built-in guest's work; null: own guest"},
        nics=list_of(object_of(mac=TEXT, switch=TEXT, address=TEXT)),
        disks=list_of(TEXT),
        forwards=list_of(_forward()),
    )
    whole = object_of(
        vm={**or_null(made), "description": "null: somebody has removed it meanwhile"},
        host=TEXT,
        state={"enum": [VmState.OFF, VmState.RUNNING]},
        accelerator_why=TEXT,
        address={**or_null(TEXT), "description": "at which its guest is reached now"},
        forwards=list_of(_forward(up=YES_NO)),
    )
    made_of: Schema = closed(known.document("vm-created", 1, "What refimpl vm create --json prints", whole))
    return made_of


def _vm_changed_schema() -> Schema:
    whole = object_of(
        vm=TEXT,
        host={**or_null(TEXT), "description": "null: no host had it"},
        state={**or_null(one_of(VmState)), "description": "how it stands now; null: it was removed"},
    )
    title = "What refimpl vm set, start, stop, pause, resume and remove print with --json"
    return _published("vm-changed", title, whole)


def _lab_schema() -> Schema:
    step = object_of(name=TEXT, seconds=NUMBER)
    whole = object_of(lab=TEXT, id=TEXT, hosts=list_of(TEXT), group=TEXT, steps=list_of(step), remarks=list_of(TEXT))
    whole["properties"]["group"] = {**TEXT, "description": "the file of the group"}
    return _published("lab", "What refimpl lab up --json prints", whole)


def _lab_status_schema() -> Schema:
    alive = dict.fromkeys(("init_alive", "libvirtd_alive", "libvirtd_answers", "virtlockd_alive"), YES_NO)
    leases = {"daemons_in_order": YES_NO, "without_lease": list_of(TEXT), "left_locked": list_of(TEXT)}
    host = object_of(name=TEXT, **alive, **leases, memory_mib=COUNT, healthy=YES_NO)
    whole = object_of(lab=TEXT, id=TEXT, healthy=YES_NO, hosts=list_of(host), links=list_of(_link()))
    return _published("lab-status", "What refimpl lab status --json prints", whole)


def _lab_mended_schema() -> Schema:
    known = Definitions()
    vm = object_of(
        vm=TEXT,
        lease=one_of(Did),
        pause_ms={**or_null(NUMBER), "description": "null: it did not stand still, or that was not seen"},
        resumed={**YES_NO, "description": "it was found paused by a mending that was interrupted"},
        problem=or_null(known.of(Problem)),
    )
    done = {"lock_daemon_started": YES_NO, "libvirtd_restarted": YES_NO}
    off = "ids of VMs that are not on there, and whose leases were "
    done["released"] = {**list_of(TEXT), "description": f"{off}given back"}
    done["left_locked"] = {**list_of(TEXT), "description": f"{off}not given back"}
    whole = object_of(lab=TEXT, host=TEXT, whole=YES_NO, **done, vms=list_of(vm))
    made: Schema = closed(known.document("lab-mended", 1, "What refimpl lab mend --json prints", whole))
    return made


def _lab_power_schema() -> Schema:
    waiting = {**list_of(TEXT), "description": "ids of this controller's operations that refimpl recover has to end"}
    whole = object_of(lab=TEXT, host=TEXT, switched_on=YES_NO, to_recover=waiting)
    return _published("lab-power", "What refimpl lab power-on --json prints", whole)


def _link() -> Schema:
    limit = {**or_null(COUNT), "description": "null: no limit"}
    return object_of(host=TEXT, network=TEXT, address=or_null(TEXT), up=YES_NO, rate_mbit_s=limit)


def _lab_link_schema() -> Schema:
    return _published("lab-link", "What refimpl lab link --json prints: the link as it is then", _link())


def _lab_removals_schema() -> Schema:
    left = {**list_of(TEXT), "description": "what could not be removed; empty: nothing of it is left"}
    row = object_of(lab={**TEXT, "description": "its name, or its id"}, id=TEXT, removed=list_of(TEXT), left=left)
    return _published("lab-removals", "What refimpl lab down and reap print with --json", object_of(labs=list_of(row)))


def _lab_list_schema() -> Schema:
    row = object_of(id=TEXT, name=TEXT, state=one_of(LabState), directory=TEXT)
    return _published("lab-list", "What refimpl lab list --json prints", object_of(labs=list_of(row)))


def _standing_fault() -> Schema:
    abandoned = {**YES_NO, "description": "the command that did it is gone: refimpl lab fault undo"}
    return object_of(id=TEXT, fault=TEXT, strikes=TEXT, abandoned=abandoned)


def _faults_undone_schema() -> Schema:
    whole = object_of(undone=list_of(_standing_fault()))
    return _published("faults-undone", "What refimpl lab fault undo --json prints", whole)


def _fault_list_schema() -> Schema:
    fault = object_of(
        name=TEXT,
        strikes=TEXT,
        does=TEXT,
        may_lead_to=list_of(TEXT),
        undone=TEXT,
        needs=list_of(TEXT),
        may_lose_vm=YES_NO,
    )
    whole = object_of(faults=list_of(fault), standing=list_of(_standing_fault()))
    return _published("fault-list", "What refimpl lab fault list --json prints", whole)


def _fault_schema() -> Schema:
    whole = object_of(fault=TEXT, strikes=TEXT, for_s=or_null(NUMBER), undone_by_itself=YES_NO)
    whole["properties"]["for_s"]["description"] = "null: until Ctrl-C"
    return _published("fault", "What refimpl lab fault NAME --json prints, as soon as it has struck", whole)


def _doctor_schema() -> Schema:
    finding = object_of(
        name=TEXT,
        ok=YES_NO,
        text=TEXT,
        mend=TEXT,
        repair={**TEXT, "description": "what doctor --mend does about it; empty: nothing"},
    )
    mended = object_of(name=TEXT, does=TEXT, ok=YES_NO, said={**or_null(TEXT), "description": "why it failed"})
    whole = object_of(ok=YES_NO, findings=list_of(finding))
    whole["properties"]["mended"] = {**list_of(mended), "description": "with --mend only"}
    return _published("doctor", "What refimpl doctor --json prints", whole)


def _operations_pruned_schema() -> Schema:
    kept = {"type": "object", "description": "why, by operation", "additionalProperties": TEXT}
    whole = object_of(removed=list_of(TEXT), kept=kept)
    return _published("operations-pruned", "What refimpl operations prune --json prints", whole)


def _problems_schema() -> Schema:
    known = Definitions()
    whole = object_of(kind={"const": "problems"}, problems=list_of(known.of(Problem)), exit_code=one_of(ExitCode))
    whole["properties"]["operation"] = {**TEXT, "description": "of which operation, where there are several"}
    title = "What every verb prints with --json in place of its own when it did not come to an end"
    made: Schema = closed(known.document("problems", 1, title, whole))
    return made


SCHEMAS: Mapping[str, Callable[[], Schema]] = {
    "host-settings": _host_settings_schema,
    "migration-networks": _migration_networks_schema,
    "fence-tried": _fence_tried_schema,
    "vm-list": _vm_list_schema,
    "vm": _vm_schema,
    "vm-created": _vm_created_schema,
    "vm-changed": _vm_changed_schema,
    "lab": _lab_schema,
    "lab-status": _lab_status_schema,
    "lab-mended": _lab_mended_schema,
    "lab-power": _lab_power_schema,
    "lab-link": _lab_link_schema,
    "lab-removals": _lab_removals_schema,
    "lab-list": _lab_list_schema,
    "fault-list": _fault_list_schema,
    "fault": _fault_schema,
    "faults-undone": _faults_undone_schema,
    "doctor": _doctor_schema,
    "operations-pruned": _operations_pruned_schema,
    "problems": _problems_schema,
}
"""Published schemas of these verbs by name."""
