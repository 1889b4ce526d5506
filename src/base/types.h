/* The names of things that must never be taken for one another (docs: ARCHITECTURE.md, "Words").
 *
 * vCPU index, APIC ID, ACPI UID, GSI, pin, vector, requester id, gva, gpa and hva are different things. The two that
 * are most easily confused, because they are equal on every small machine, are distinct C types.
 */
#ifndef HEC_BASE_TYPES_H
#define HEC_BASE_TYPES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t gpa_t; /* guest-physical address */
typedef uint64_t gva_t; /* guest-virtual (linear) address */

/* Position of a vCPU in the machine: 0 .. n-1, dense. Never visible to the guest. */
typedef struct vcpu_idx {
    uint32_t i;
} vcpu_idx_t;

/* What the guest names a CPU by: 32 bits, sparse. */
typedef struct apic_id {
    uint32_t id;
} apic_id_t;

#define VCPU_IDX(n) ((vcpu_idx_t){(uint32_t)(n)})
#define APIC_ID(n)  ((apic_id_t){(uint32_t)(n)})

#define HEC_APIC_ID_MAX 32767u /* largest ID the 15-bit extended destination can name */
#define HEC_NS_NEVER    UINT64_MAX

#endif
