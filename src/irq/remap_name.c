#include "irq/remap_name.h"

const char *remap_form_name(enum remap_form form)
{
    switch (form) {
    case REMAP_FORM_COMPAT:
        return "compatibility";
    case REMAP_FORM_EXT_DEST:
        return "extended destination";
    case REMAP_FORM_VTD:
        return "VT-d remappable";
    case REMAP_FORM_UNIT:
        return "a remapping unit's own";
    case REMAP_FORM_ADDR_HI:
        return "KVM's, high destination bits in the upper address";
    case REMAP_FORM_WINDOWS_HIGH:
        return "Windows', high destination bits in address bits 55:32";
    case REMAP_FORM_WINDOWS_AMD:
        return "Windows', AMD-style index of a VT-d entry";
    case REMAP_FORM_XEN_PIRQ:
        return "Xen PIRQ";
    case REMAP_FORM_AMDVI:
        return "AMD-Vi remapped";
    }
    return "unnamed";
}

const char *remap_fault_name(enum remap_fault fault)
{
    switch (fault) {
    case REMAP_OK:
        return "none";
    case REMAP_NOT_INTERRUPT:
        return "not an interrupt: an ordinary memory write";
    case REMAP_BAD_MODE:
        return "delivery mode that no message carries";
    case REMAP_HIGH_ADDRESS:
        return "address bits past 31 that mean nothing on this machine";
    case REMAP_XEN_PIRQ:
        return "Xen PIRQ that nobody here resolves";
    case REMAP_POSTED:
        return "none: noted in a posted-interrupt descriptor";
    case REMAP_VTD_REQUEST_RSVD:
        return "VT-d: reserved bits in the message";
    case REMAP_VTD_INDEX:
        return "VT-d: index past the end of the table";
    case REMAP_VTD_NOT_PRESENT:
        return "VT-d: table entry not present";
    case REMAP_VTD_TABLE:
        return "VT-d: table not in memory";
    case REMAP_VTD_ENTRY_RSVD:
        return "VT-d: reserved bits in the table entry";
    case REMAP_VTD_COMPAT_BLOCKED:
        return "VT-d: compatibility-format message blocked";
    case REMAP_VTD_SOURCE:
        return "VT-d: the sender may not use the table entry";
    case REMAP_VTD_DESCRIPTOR:
        return "VT-d: posted-interrupt descriptor not in memory";
    case REMAP_VTD_DESCRIPTOR_RSVD:
        return "VT-d: reserved bits in the posted-interrupt descriptor";
    case REMAP_AMDVI_BLOCKED:
        return "AMD-Vi: the device may send no interrupt of this kind";
    case REMAP_AMDVI_DEVICE:
        return "AMD-Vi: no device table entry, or an illegal one";
    case REMAP_AMDVI_INDEX:
        return "AMD-Vi: index past the end of the device's table";
    case REMAP_AMDVI_NOT_PRESENT:
        return "AMD-Vi: table entry not enabled";
    case REMAP_AMDVI_RESERVED:
        return "AMD-Vi: reserved bits or type in the table entry";
    case REMAP_AMDVI_UNREACHABLE:
        return "AMD-Vi: table not in memory";
    }
    return "unnamed";
}

const char *irq_mode_name(unsigned mode)
{
    static const char *const name[8] = {"fixed", "lowest priority", "SMI",   "remote read", "NMI",
                                        "INIT",  "start-up",        "ExtINT"};
    return name[mode & 7];
}
