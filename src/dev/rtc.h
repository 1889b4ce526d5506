/* MC146818 real-time clock with 128 bytes of CMOS at 70h/71h, IRQ 8. MC146818A data sheet, "Address Map", "Registers".
 *
 * The time of day is a base in seconds plus guest time, so a virtual clock has its own calendar. Nothing runs while the
 * guest has no RTC interrupt enabled: flags are worked out when they are read.
 */
#ifndef HEC_DEV_RTC_H
#define HEC_DEV_RTC_H

#include "base/clock.h"
#include "base/timerq.h"
#include "irq/irq_msg.h"
#include "mem/bus.h"

#define RTC_PORT 0x70u

struct rtc_config { /* all borrowed for the device's life */
    struct bus *ports;
    struct irq_line irq;
    struct timerq *timerq; /* room for one timer */
    struct guest_clock *clock;
    uint64_t base_seconds;      /* since 1970 at guest time 0: clock_wall_seconds(), or fixed */
    uint64_t ram_low, ram_high; /* bytes below the PCI hole and above 4 GiB */
    uint32_t cpus;              /* CMOS 5Fh holds cpus - 1, or 0 past 255 */
    const struct trace *trace;
};

struct rtc {
    struct rtc_config cfg; /* (c) */
    struct timer timer;    /* next enabled interrupt */
    pthread_mutex_t lock;
    uint8_t cmos[128]; /* (l) the clock's own bytes are filled when read */
    uint8_t index;     /* (l) */
    bool nmi_masked;   /* (l) bit 7 of port 70h */
    /* Time of day in ns since 1970, modulo 2^64, is offset + guest time while the clock runs. While it is stopped (SET,
     * or the divider held in reset) its bytes in cmos[] are what the guest makes them, and phase_ns is all that is
     * kept. */
    uint64_t offset_ns;
    bool stopped;      /* (l) */
    uint64_t phase_ns; /* (l) place in the second */
    uint64_t checked;  /* (l) guest ns up to which register C's flags are worked out */
};

/* ---- lifecycle ---- */
int rtc_init(struct rtc *r, const struct rtc_config *c, struct err *e);
void rtc_fini(struct rtc *r);
/* The reset line clears interrupt enables and flags; time and CMOS are battery-backed and stay. */
void rtc_reset(struct rtc *r);

/* ---- any thread ---- */
bool rtc_nmi_masked(struct rtc *r);

#endif
