/* ACPI fixed hardware at ports 600h-67Fh as a q35 has it, SMI_CMD (B2h/B3h), the reset register (CF9h), port 92h, and
 * as much of a keyboard controller (60h/64h) as resetting the machine through it takes. ACPI 6.4, 4.8 "ACPI Register
 * Model"; CF9h: ICH9 data sheet, "RST_CNT - Reset Control Register".
 */
#ifndef HEC_DEV_PM_H
#define HEC_DEV_PM_H

#include "base/clock.h"
#include "base/timerq.h"
#include "dev/control.h"
#include "irq/irq_msg.h"
#include "mem/bus.h"

#define PM_BASE     0x600u
#define PM1_EVT     (PM_BASE + 0x00) /* status u16, enable u16 */
#define PM1_CNT     (PM_BASE + 0x04) /* u16 */
#define PM_TMR      (PM_BASE + 0x08) /* u32 */
#define PM_GPE0     (PM_BASE + 0x20) /* PM_GPE0_LEN / 2 status bytes, as many enable bytes */
#define PM_GPE0_LEN 16u
#define PM_LEN      0x80u

#define PM_SMI_CMD      0xb2u
#define PM_ACPI_ENABLE  0x02u /* written to PM_SMI_CMD */
#define PM_ACPI_DISABLE 0x03u
#define PM_RESET_REG    0xcf9u
#define PM_RESET_VALUE  0x06u /* hard reset */
#define PM_SLP_TYP_S5   0u    /* \_S5 */
#define PM_SCI_GSI      9u
#define PM_TMR_HZ       3579545u

struct pm_config { /* all borrowed for the device's life */
    struct bus *ports;
    struct irq_line sci;   /* PM_SCI_GSI: level, active high */
    struct timerq *timerq; /* room for one timer */
    struct guest_clock *clock;
    const struct vm_control *control;
    bool timer_24bit; /* the PM timer is 24 bits wide rather than 32 */
    bool acpi_mode;   /* SCI_EN is set at reset, as firmware leaves a machine without SMM */
    const struct trace *trace;
};

struct pm {
    struct pm_config cfg; /* (c) */
    struct timer timer;   /* the next PM timer overflow, while its interrupt is enabled */
    pthread_mutex_t lock;
    uint16_t sts, en, cnt;                  /* (l) PM1 */
    uint8_t gpe_sts[PM_GPE0_LEN / 2];       /* (l) */
    uint8_t gpe_en[PM_GPE0_LEN / 2];        /* (l) */
    uint8_t gpe_level[PM_GPE0_LEN / 2];     /* (l) inputs */
    uint8_t apm_cnt, apm_sts, rst_cnt, a20; /* (l) */
    uint8_t kbc_command;                    /* (l) command whose data byte is expected at port 60h, 0 if none */
    uint64_t checked;                       /* (l) guest ns up to which TMR_STS is worked out */
};

/* ---- lifecycle ---- */
int pm_init(struct pm *p, const struct pm_config *c, struct err *e);
void pm_fini(struct pm *p);
void pm_reset(struct pm *p);

/* ---- any thread (inside the epoch: both raise the SCI) ---- */
void pm_power_button(struct pm *p);
void pm_sleep_button(struct pm *p);
/* Input of general-purpose event `gpe` (0-63). */
void pm_gpe_set(struct pm *p, unsigned gpe, bool level);
/* CF9h lies inside PCI's CF8h dword, so that port's owner hands byte accesses to it on. `pm` is a struct pm. */
uint8_t pm_reset_read(void *pm);
void pm_reset_write(void *pm, uint8_t val);

#endif
