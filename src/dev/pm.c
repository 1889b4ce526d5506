#include "dev/pm.h"

#include "base/bits.h"
#include "dev/bytes.h"

/* PM1 status and enable. ACPI 6.4, 4.8.3.1 "PM1 Event Grouping". */
#define PM1_TMR      0x0001u
#define PM1_GBL      0x0020u
#define PM1_PWRBTN   0x0100u
#define PM1_SLPBTN   0x0200u
#define PM1_RTC      0x0400u
#define PM1_WAK      0x8000u
#define PM1_STS_BITS (PM1_TMR | 0x10u | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC | PM1_WAK)
#define PM1_EN_BITS  (PM1_TMR | PM1_GBL | PM1_PWRBTN | PM1_SLPBTN | PM1_RTC)

/* PM1 control. ACPI 6.4, 4.8.3.2 "PM1 Control Grouping". */
#define CNT_SCI_EN     0x0001u
#define CNT_SLP_EN     0x2000u
#define CNT_STORED     0x1c02u /* SLP_TYP, BM_RLD */
#define CNT_SLP_TYP(c) ((c) >> 10 & 7u)

#define RST_SYS 0x02u /* CF9h: hard rather than soft */
#define RST_CPU 0x04u /* its rise resets */

#define KBC_STATUS      0x1c /* status: unlocked, last byte was a command, self-tested; both buffers empty */
#define KBC_READ_OUT    0xd0
#define KBC_WRITE_OUT   0xd1
#define KBC_PULSE_RESET 0xfe

/* ---- PM timer ---- */

static uint64_t pm_ticks(uint64_t ns)
{
    return (uint64_t)((unsigned __int128)ns * PM_TMR_HZ / NS_PER_SEC);
}

static uint64_t pm_ticks_ns(uint64_t ticks)
{
    return (uint64_t)(((unsigned __int128)ticks * NS_PER_SEC + PM_TMR_HZ - 1) / PM_TMR_HZ);
}

/* TMR_STS is set each time the timer's top bit changes. ACPI 6.4, 4.8.3.3 "Power Management Timer". */
static unsigned top_bit(const struct pm *p)
{
    return p->cfg.timer_24bit ? 23 : 31;
}

/* ---- the SCI (lock held) ---- */

static bool gpe_active(const struct pm *p)
{
    uint8_t any = 0;
    for (unsigned i = 0; i < sizeof p->gpe_sts; i++)
        any |= p->gpe_sts[i] & p->gpe_en[i];
    return any;
}

static void update_sci(struct pm *p)
{
    bool active = p->sts & p->en & PM1_EN_BITS || gpe_active(p);
    irq_line_set(&p->cfg.sci, active && p->cnt & CNT_SCI_EN);
}

static void catch_up(struct pm *p, uint64_t now)
{
    if (now <= p->checked)
        return;
    unsigned top = top_bit(p);
    if (pm_ticks(now) >> top != pm_ticks(p->checked) >> top)
        p->sts |= PM1_TMR;
    p->checked = now;
    update_sci(p);
}

static void rearm(struct pm *p)
{
    if (!(p->en & PM1_TMR) || p->sts & PM1_TMR) {
        timer_cancel(p->cfg.timerq, &p->timer);
        return;
    }
    unsigned top = top_bit(p);
    timer_arm(p->cfg.timerq, &p->timer, pm_ticks_ns(((pm_ticks(p->checked) >> top) + 1) << top));
}

static void on_timer(void *opaque, uint64_t now)
{
    struct pm *p = opaque;
    pthread_mutex_lock(&p->lock);
    catch_up(p, now);
    rearm(p);
    pthread_mutex_unlock(&p->lock);
}

/* ---- 600h-67Fh, a byte at a time (lock held) ---- */

static uint8_t byte_of(uint64_t v, unsigned i)
{
    return (uint8_t)(v >> (8 * i));
}

static void set_byte(uint16_t *v, unsigned i, uint8_t b, uint16_t writable)
{
    uint16_t mask = (uint16_t)(0xffu << (8 * i));
    *v = (uint16_t)((*v & ~(mask & writable)) | ((uint16_t)(b << (8 * i)) & writable));
}

static uint8_t pm_read_byte(const struct pm *p, unsigned off)
{
    const unsigned half = PM_GPE0_LEN / 2, gpe = PM_GPE0 - PM_BASE;
    if (off < 2)
        return byte_of(p->sts, off);
    if (off < 4)
        return byte_of(p->en, off - 2);
    if (off < 6)
        return byte_of(p->cnt, off - 4);
    if (off >= 8 && off < 12)
        return byte_of(pm_ticks(p->checked) & (p->cfg.timer_24bit ? 0xffffff : 0xffffffff), off - 8);
    if (off >= gpe && off < gpe + half)
        return p->gpe_sts[off - gpe];
    if (off >= gpe + half && off < gpe + PM_GPE0_LEN)
        return p->gpe_en[off - gpe - half];
    return 0;
}

/* S5 is the only sleeping state offered; SLP_EN with another type does nothing. */
static void write_cnt(struct pm *p, unsigned i, uint8_t val)
{
    set_byte(&p->cnt, i, val, CNT_STORED);
    if (i == 1 && val & CNT_SLP_EN >> 8 && CNT_SLP_TYP(p->cnt) == PM_SLP_TYP_S5)
        vm_request(p->cfg.control, VM_REQ_POWEROFF, 0);
}

static void pm_write_byte(struct pm *p, unsigned off, uint8_t val)
{
    const unsigned half = PM_GPE0_LEN / 2, gpe = PM_GPE0 - PM_BASE;
    if (off < 2)
        p->sts &= (uint16_t) ~((uint16_t)val << (8 * off) & PM1_STS_BITS);
    else if (off < 4)
        set_byte(&p->en, off - 2, val, PM1_EN_BITS);
    else if (off < 6)
        write_cnt(p, off - 4, val);
    else if (off >= gpe && off < gpe + half)
        /* A level that is still up sets its status again at once. */
        p->gpe_sts[off - gpe] = (uint8_t)((p->gpe_sts[off - gpe] & ~val) | p->gpe_level[off - gpe]);
    else if (off >= gpe + half && off < gpe + PM_GPE0_LEN)
        p->gpe_en[off - gpe - half] = val;
}

static void lock_now(struct pm *p)
{
    pthread_mutex_lock(&p->lock);
    catch_up(p, guest_clock_now(p->cfg.clock));
}

static uint64_t pm_read(void *dev, uint64_t off, unsigned size)
{
    struct pm *p = dev;
    uint64_t v = 0;
    lock_now(p); /* the timer is read at one instant, whatever the width */
    for (unsigned i = 0; i < size; i++)
        v |= (uint64_t)pm_read_byte(p, (unsigned)off + i) << (8 * i);
    pthread_mutex_unlock(&p->lock);
    return v;
}

static void pm_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct pm *p = dev;
    lock_now(p);
    for (unsigned i = 0; i < size; i++)
        pm_write_byte(p, (unsigned)off + i, (uint8_t)(val >> (8 * i)));
    update_sci(p);
    rearm(p);
    pthread_mutex_unlock(&p->lock);
}

/* ---- B2h, B3h ---- */

static uint8_t apm_read(void *dev, unsigned off)
{
    struct pm *p = dev;
    pthread_mutex_lock(&p->lock);
    uint8_t v = off ? p->apm_sts : p->apm_cnt;
    pthread_mutex_unlock(&p->lock);
    return v;
}

/* What firmware's SMI handler would do. ACPI 6.4, 4.8.2.5 "Legacy/ACPI Select and the SCI Interrupt". */
static void apm_write(void *dev, unsigned off, uint8_t val)
{
    struct pm *p = dev;
    pthread_mutex_lock(&p->lock);
    if (off) {
        p->apm_sts = val;
    } else {
        p->apm_cnt = val;
        if (val == PM_ACPI_ENABLE)
            p->cnt |= CNT_SCI_EN;
        else if (val == PM_ACPI_DISABLE)
            p->cnt &= (uint16_t)~CNT_SCI_EN;
        update_sci(p);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- CF9h, 92h, 60h, 64h ---- */

uint8_t pm_reset_read(void *pm)
{
    struct pm *p = pm;
    pthread_mutex_lock(&p->lock);
    uint8_t v = p->rst_cnt;
    pthread_mutex_unlock(&p->lock);
    return v;
}

void pm_reset_write(void *pm, uint8_t val)
{
    struct pm *p = pm;
    pthread_mutex_lock(&p->lock);
    bool fire = val & RST_CPU && !(p->rst_cnt & RST_CPU);
    p->rst_cnt = val & (RST_SYS | 0x08); /* RST_CPU clears itself with the reset */
    pthread_mutex_unlock(&p->lock);
    if (fire)
        vm_request(p->cfg.control, VM_REQ_RESET, 0);
}

static uint64_t port92_read(void *dev, uint64_t off, unsigned size)
{
    struct pm *p = dev;
    pthread_mutex_lock(&p->lock);
    uint8_t v = p->a20;
    pthread_mutex_unlock(&p->lock);
    return v;
}

/* Bit 0 resets, bit 1 is the A20 gate: it reads back and gates nothing, A20 is always on. */
static void port92_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct pm *p = dev;
    pthread_mutex_lock(&p->lock);
    p->a20 = val & 2;
    pthread_mutex_unlock(&p->lock);
    if (val & 1)
        vm_request(p->cfg.control, VM_REQ_RESET, 0);
}

/* A controller that takes every byte and answers none: whoever waits for room finds it, whoever drains it is done, and
 * whoever waits for an answer learns that there is no keyboard. */
static uint64_t kbc_status_read(void *dev, uint64_t off, unsigned size)
{
    return KBC_STATUS;
}

static void kbc_command_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct pm *p = dev;
    pthread_mutex_lock(&p->lock);
    p->kbc_command = (uint8_t)val;
    pthread_mutex_unlock(&p->lock);
    /* F0h-FFh pulse output lines that are 0 in the low nibble; line 0 is the reset. */
    if ((val & 0xf1) == (KBC_PULSE_RESET & 0xf1))
        vm_request(p->cfg.control, VM_REQ_RESET, 0);
}

static uint64_t kbc_data_read(void *dev, uint64_t off, unsigned size)
{
    struct pm *p = dev;
    pthread_mutex_lock(&p->lock);
    uint8_t v = p->kbc_command == KBC_READ_OUT ? 0x03 : 0;
    p->kbc_command = 0;
    pthread_mutex_unlock(&p->lock);
    return v;
}

static void kbc_data_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct pm *p = dev;
    pthread_mutex_lock(&p->lock);
    bool reset = p->kbc_command == KBC_WRITE_OUT && !(val & 1);
    p->kbc_command = 0;
    pthread_mutex_unlock(&p->lock);
    if (reset)
        vm_request(p->cfg.control, VM_REQ_RESET, 0);
}

static uint64_t bus_apm_read(void *dev, uint64_t off, unsigned size)
{
    return dev_read_bytes(apm_read, dev, off, size);
}

static void bus_apm_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    dev_write_bytes(apm_write, dev, off, size, val);
}

static const struct bus_ops pm_ops = {pm_read, pm_write};
static const struct bus_ops apm_ops = {bus_apm_read, bus_apm_write};
static const struct bus_ops port92_ops = {port92_read, port92_write};
static const struct bus_ops kbc_data_ops = {kbc_data_read, kbc_data_write};
static const struct bus_ops kbc_command_ops = {kbc_status_read, kbc_command_write};

/* ---- any thread ---- */

static void fixed_event(struct pm *p, uint16_t sts)
{
    pthread_mutex_lock(&p->lock);
    p->sts |= sts;
    update_sci(p);
    pthread_mutex_unlock(&p->lock);
}

void pm_power_button(struct pm *p)
{
    fixed_event(p, PM1_PWRBTN);
}

void pm_sleep_button(struct pm *p)
{
    fixed_event(p, PM1_SLPBTN);
}

void pm_gpe_set(struct pm *p, unsigned gpe, bool level)
{
    if (gpe >= 8 * sizeof p->gpe_sts)
        return;
    uint8_t bit = (uint8_t)(1u << gpe % 8);
    pthread_mutex_lock(&p->lock);
    p->gpe_level[gpe / 8] = level ? p->gpe_level[gpe / 8] | bit : p->gpe_level[gpe / 8] & (uint8_t)~bit;
    p->gpe_sts[gpe / 8] |= p->gpe_level[gpe / 8] & bit;
    update_sci(p);
    pthread_mutex_unlock(&p->lock);
}

/* ---- lifecycle ---- */

static void reset_locked(struct pm *p)
{
    p->sts = p->en = 0;
    p->cnt = p->cfg.acpi_mode ? CNT_SCI_EN : 0;
    for (unsigned i = 0; i < sizeof p->gpe_sts; i++) {
        p->gpe_sts[i] = p->gpe_level[i];
        p->gpe_en[i] = 0;
    }
    p->apm_cnt = p->apm_sts = p->rst_cnt = p->kbc_command = 0;
    p->a20 = 2;
    timer_cancel(p->cfg.timerq, &p->timer);
    update_sci(p);
}

void pm_reset(struct pm *p)
{
    pthread_mutex_lock(&p->lock);
    reset_locked(p);
    pthread_mutex_unlock(&p->lock);
}

int pm_init(struct pm *p, const struct pm_config *c, struct err *e)
{
    *p = (struct pm){.cfg = *c};
    pthread_mutex_init(&p->lock, NULL);
    timer_init(&p->timer, on_timer, p);
    reset_locked(p);
    const struct bus_region r[] = {
        {PM_BASE, PM_LEN, &pm_ops, p, "acpi pm"},
        {PM_SMI_CMD, 2, &apm_ops, p, "apm"},
        {0x92, 1, &port92_ops, p, "port 92h"},
        {0x60, 1, &kbc_data_ops, p, "keyboard data"},
        {0x64, 1, &kbc_command_ops, p, "keyboard command"},
    };
    int rc = 0;
    for (unsigned i = 0; i < ARRAY_SIZE(r) && rc == 0; i++)
        rc = bus_map(c->ports, &r[i], e);
    if (rc < 0)
        pm_fini(p);
    return rc;
}

void pm_fini(struct pm *p)
{
    static const uint16_t bases[] = {PM_BASE, PM_SMI_CMD, 0x92, 0x60, 0x64};
    timer_cancel(p->cfg.timerq, &p->timer);
    for (unsigned i = 0; i < ARRAY_SIZE(bases); i++)
        bus_unmap(p->cfg.ports, bases[i]);
    pthread_mutex_destroy(&p->lock);
}
