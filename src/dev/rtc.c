#include "dev/rtc.h"

#include "base/bits.h"
#include "dev/bytes.h"

#include <time.h>

enum { SEC = 0, SEC_AL = 1, MIN = 2, MIN_AL = 3, HOUR = 4, HOUR_AL = 5, WDAY = 6, MDAY = 7, MONTH = 8, YEAR = 9 };
enum { REG_A = 10, REG_B = 11, REG_C = 12, REG_D = 13, CENTURY = 0x32 };

#define A_UIP   0x80
#define B_SET   0x80
#define B_PIE   0x40
#define B_AIE   0x20
#define B_UIE   0x10
#define B_DM    0x04
#define B_24H   0x02
#define C_IRQF  0x80
#define C_FLAGS 0x70
#define D_VRT   0x80

#define UIP_NS      244141u /* UIP leads the update by 8 cycles of 32768 Hz */
#define RTC_HZ      32768u
#define SECONDS_MAX UINT64_C(18000000000) /* year 2540: ns since 1970 fit 64 bits */
#define ALARM_ANY   0xc0                  /* both top bits set: don't care */

/* ---- time ---- */

static uint64_t time_of_day(const struct rtc *r, uint64_t now)
{
    return r->offset_ns + now;
}

static bool divider_held(const struct rtc *r)
{
    return (r->cmos[REG_A] & 0x60) == 0x60;
}

static uint8_t encode(const struct rtc *r, int v)
{
    return (uint8_t)(r->cmos[REG_B] & B_DM ? v : (v / 10 % 10) << 4 | v % 10);
}

static int decode(const struct rtc *r, uint8_t v)
{
    return r->cmos[REG_B] & B_DM ? v : (v >> 4) * 10 + (v & 15);
}

static uint8_t encode_hour(const struct rtc *r, int hour)
{
    if (r->cmos[REG_B] & B_24H)
        return encode(r, hour);
    int h = hour % 12 ? hour % 12 : 12;
    return encode(r, h) | (hour >= 12 ? 0x80 : 0);
}

static int decode_hour(const struct rtc *r, uint8_t v)
{
    if (r->cmos[REG_B] & B_24H)
        return decode(r, v);
    return decode(r, v & 0x7f) % 12 + (v & 0x80 ? 12 : 0);
}

/* The clock's bytes from the time of day, if it runs. */
static void fill_time(struct rtc *r, uint64_t now)
{
    if (r->stopped)
        return;
    time_t t = (time_t)(time_of_day(r, now) / NS_PER_SEC);
    struct tm tm;
    gmtime_r(&t, &tm);
    r->cmos[SEC] = encode(r, tm.tm_sec);
    r->cmos[MIN] = encode(r, tm.tm_min);
    r->cmos[HOUR] = encode_hour(r, tm.tm_hour);
    r->cmos[WDAY] = encode(r, tm.tm_wday + 1);
    r->cmos[MDAY] = encode(r, tm.tm_mday);
    r->cmos[MONTH] = encode(r, tm.tm_mon + 1);
    r->cmos[YEAR] = encode(r, tm.tm_year % 100);
    r->cmos[CENTURY] = encode(r, (tm.tm_year + 1900) / 100);
}

/* The time of day from the clock's bytes, whatever the guest put there; timegm() normalises nonsense. */
static void take_time(struct rtc *r, uint64_t now, uint64_t phase_ns)
{
    struct tm tm = {
        .tm_sec = decode(r, r->cmos[SEC]),
        .tm_min = decode(r, r->cmos[MIN]),
        .tm_hour = decode_hour(r, r->cmos[HOUR]),
        .tm_mday = decode(r, r->cmos[MDAY]),
        .tm_mon = decode(r, r->cmos[MONTH]) - 1,
        .tm_year = decode(r, r->cmos[CENTURY]) * 100 + decode(r, r->cmos[YEAR]) - 1900,
    };
    time_t t = timegm(&tm);
    uint64_t seconds = t < 0 ? 0 : min_u64((uint64_t)t, SECONDS_MAX);
    r->offset_ns = seconds * NS_PER_SEC + phase_ns - now;
}

/* ---- alarm ---- */

static bool alarm_hit(const struct rtc *r, uint8_t want, int have, bool hour)
{
    return (want & ALARM_ANY) == ALARM_ANY || (hour ? decode_hour(r, want) : decode(r, want)) == have;
}

/* First second after `sec` that the alarm matches, or UINT64_MAX. At most a day ahead: 24 hours, 60 minutes and 60
 * seconds are tried, not 86400. */
static uint64_t next_alarm(const struct rtc *r, uint64_t sec)
{
    uint64_t t = sec + 1, end = sec + 86400;
    while (t <= end) {
        if (!alarm_hit(r, r->cmos[HOUR_AL], (int)(t / 3600 % 24), true))
            t += 3600 - t % 3600;
        else if (!alarm_hit(r, r->cmos[MIN_AL], (int)(t / 60 % 60), false))
            t += 60 - t % 60;
        else if (!alarm_hit(r, r->cmos[SEC_AL], (int)(t % 60), false))
            t++;
        else
            return t;
    }
    return UINT64_MAX;
}

/* ---- interrupt flags ---- */

/* The periodic rate in cycles of 32768 Hz, 0 if off. MC146818A, "Periodic Interrupt Rate". */
static unsigned period_cycles(const struct rtc *r)
{
    unsigned rate = r->cmos[REG_A] & 15;
    if (!rate || divider_held(r))
        return 0;
    return 1u << (rate <= 2 ? rate + 6 : rate - 1);
}

/* Number of periods completed by guest time `ns`. */
static uint64_t periods_at(const struct rtc *r, uint64_t ns, unsigned cycles)
{
    return (uint64_t)((unsigned __int128)ns * RTC_HZ / NS_PER_SEC / cycles);
}

static uint64_t period_start(uint64_t n, unsigned cycles)
{
    return (uint64_t)(((unsigned __int128)n * cycles * NS_PER_SEC + RTC_HZ - 1) / RTC_HZ);
}

static void update_irq(struct rtc *r)
{
    bool on = r->cmos[REG_C] & r->cmos[REG_B] & C_FLAGS;
    r->cmos[REG_C] = (uint8_t)((r->cmos[REG_C] & C_FLAGS) | (on ? C_IRQF : 0));
    irq_line_set(&r->cfg.irq, on);
}

/* Work out the flags of everything that happened in (checked, now]. */
static void catch_up(struct rtc *r, uint64_t now)
{
    if (now <= r->checked)
        return;
    unsigned cycles = period_cycles(r);
    if (cycles && periods_at(r, now, cycles) != periods_at(r, r->checked, cycles))
        r->cmos[REG_C] |= B_PIE;
    if (!r->stopped) {
        uint64_t before = time_of_day(r, r->checked) / NS_PER_SEC, after = time_of_day(r, now) / NS_PER_SEC;
        if (before != after)
            r->cmos[REG_C] |= B_UIE;
        if (before != after && next_alarm(r, before) <= after)
            r->cmos[REG_C] |= B_AIE;
    }
    r->checked = now;
    update_irq(r);
}

/* Guest ns at which second `sec` of the day count begins. */
static uint64_t second_starts(const struct rtc *r, uint64_t sec)
{
    return sec * NS_PER_SEC - r->offset_ns;
}

/* Arm for the earliest enabled event whose flag is not up yet: until register C is read a second one changes nothing.
 */
static void rearm(struct rtc *r, uint64_t now)
{
    uint8_t want = r->cmos[REG_B] & ~r->cmos[REG_C] & C_FLAGS;
    uint64_t at = HEC_NS_NEVER, sec = time_of_day(r, now) / NS_PER_SEC;
    unsigned cycles = period_cycles(r);
    if (want & B_PIE && cycles)
        at = period_start(periods_at(r, now, cycles) + 1, cycles);
    if (want & B_UIE && !r->stopped)
        at = min_u64(at, second_starts(r, sec + 1));
    if (want & B_AIE && !r->stopped) {
        uint64_t alarm = next_alarm(r, sec);
        if (alarm != UINT64_MAX)
            at = min_u64(at, second_starts(r, alarm));
    }
    if (at == HEC_NS_NEVER)
        timer_cancel(r->cfg.timerq, &r->timer);
    else
        timer_arm(r->cfg.timerq, &r->timer, at);
}

static void on_timer(void *opaque, uint64_t now)
{
    struct rtc *r = opaque;
    pthread_mutex_lock(&r->lock);
    catch_up(r, now);
    rearm(r, max_u64(now, r->checked));
    pthread_mutex_unlock(&r->lock);
}

/* ---- registers ---- */

/* SET and the divider's reset stop the clock; it goes on from its bytes, after a divider reset with half a second to
 * the first update. MC146818A, "Divider Control", "SET". */
static void write_control(struct rtc *r, uint64_t now, unsigned reg, uint8_t val)
{
    bool was_held = divider_held(r);
    fill_time(r, now);
    if (!r->stopped)
        r->phase_ns = time_of_day(r, now) % NS_PER_SEC;
    if (reg == REG_A)
        r->cmos[REG_A] = val & 0x7f;
    else
        /* SET going up clears UIE. */
        r->cmos[REG_B] = val & B_SET ? val & (uint8_t)~B_UIE : val;
    if (was_held && !divider_held(r))
        r->phase_ns = NS_PER_SEC / 2;
    bool stop = r->cmos[REG_B] & B_SET || divider_held(r);
    if (r->stopped && !stop)
        take_time(r, now, r->phase_ns);
    r->stopped = stop;
    update_irq(r);
}

static bool is_time(unsigned i)
{
    return i == SEC || i == MIN || i == HOUR || (i >= WDAY && i <= YEAR) || i == CENTURY;
}

static uint8_t read_reg_a(const struct rtc *r, uint64_t now)
{
    bool uip = !r->stopped && NS_PER_SEC - time_of_day(r, now) % NS_PER_SEC <= UIP_NS;
    return r->cmos[REG_A] | (uip ? A_UIP : 0);
}

static uint8_t read_cmos(struct rtc *r, uint64_t now, unsigned i)
{
    uint8_t v;
    catch_up(r, now);
    switch (i) {
    case REG_A:
        return read_reg_a(r, now);
    case REG_C:
        v = r->cmos[REG_C];
        r->cmos[REG_C] = 0;
        update_irq(r);
        rearm(r, now);
        return v;
    case REG_D:
        return D_VRT;
    default:
        if (is_time(i))
            fill_time(r, now);
        return r->cmos[i];
    }
}

static void write_cmos(struct rtc *r, uint64_t now, unsigned i, uint8_t val)
{
    catch_up(r, now);
    if (i == REG_A || i == REG_B) {
        write_control(r, now, i, val);
    } else if (is_time(i)) {
        fill_time(r, now);
        r->cmos[i] = val;
        /* The weekday follows from the date. */
        if (!r->stopped && i != WDAY)
            take_time(r, now, time_of_day(r, now) % NS_PER_SEC);
    } else if (i != REG_C && i != REG_D) {
        r->cmos[i] = val;
    }
    rearm(r, now);
}

/* ---- the bus ---- */

static uint8_t read_port(void *opaque, unsigned off)
{
    struct rtc *r = opaque;
    pthread_mutex_lock(&r->lock);
    uint8_t v = off ? read_cmos(r, max_u64(guest_clock_now(r->cfg.clock), r->checked), r->index) : 0xff;
    pthread_mutex_unlock(&r->lock);
    return v;
}

static void write_port(void *opaque, unsigned off, uint8_t val)
{
    struct rtc *r = opaque;
    pthread_mutex_lock(&r->lock);
    if (off) {
        write_cmos(r, max_u64(guest_clock_now(r->cfg.clock), r->checked), r->index, val);
    } else {
        r->index = val & 0x7f;
        r->nmi_masked = val & 0x80;
    }
    pthread_mutex_unlock(&r->lock);
}

static uint64_t rtc_read(void *dev, uint64_t off, unsigned size)
{
    return dev_read_bytes(read_port, dev, off, size);
}

static void rtc_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    dev_write_bytes(write_port, dev, off, size, val);
}

static const struct bus_ops rtc_ops = {rtc_read, rtc_write};

bool rtc_nmi_masked(struct rtc *r)
{
    pthread_mutex_lock(&r->lock);
    bool v = r->nmi_masked;
    pthread_mutex_unlock(&r->lock);
    return v;
}

/* ---- lifecycle ---- */

/* Sizes as a PC BIOS leaves them, and the checksum over 10h-2Dh. */
static void fill_sizes(struct rtc *r)
{
    uint8_t *c = r->cmos;
    uint64_t ext_k = min_u64(r->cfg.ram_low > 0x100000 ? (r->cfg.ram_low - 0x100000) >> 10 : 0, 0xffff);
    uint64_t above16_64k = min_u64(r->cfg.ram_low > 0x1000000 ? (r->cfg.ram_low - 0x1000000) >> 16 : 0, 0xffff);
    uint64_t high_64k = min_u64(r->cfg.ram_high >> 16, 0xffffff);
    st16(c + 0x15, 640);
    st16(c + 0x17, (uint16_t)ext_k);
    st16(c + 0x30, (uint16_t)ext_k);
    st16(c + 0x34, (uint16_t)above16_64k);
    st16(c + 0x5b, (uint16_t)high_64k);
    c[0x5d] = (uint8_t)(high_64k >> 16);
    c[0x5f] = r->cfg.cpus && r->cfg.cpus <= 256 ? (uint8_t)(r->cfg.cpus - 1) : 0;
    uint16_t sum = 0;
    for (unsigned i = 0x10; i <= 0x2d; i++)
        sum = (uint16_t)(sum + c[i]);
    c[0x2e] = (uint8_t)(sum >> 8);
    c[0x2f] = (uint8_t)sum;
}

int rtc_init(struct rtc *r, const struct rtc_config *c, struct err *e)
{
    *r = (struct rtc){.cfg = *c};
    pthread_mutex_init(&r->lock, NULL);
    timer_init(&r->timer, on_timer, r);
    r->offset_ns = min_u64(c->base_seconds, SECONDS_MAX) * NS_PER_SEC;
    r->cmos[REG_A] = 0x26;
    r->cmos[REG_B] = B_24H;
    r->cmos[REG_D] = D_VRT;
    fill_sizes(r);
    const struct bus_region region = {RTC_PORT, 2, &rtc_ops, r, "rtc"};
    int rc = bus_map(c->ports, &region, e);
    if (rc < 0)
        rtc_fini(r);
    return rc;
}

void rtc_fini(struct rtc *r)
{
    timer_cancel(r->cfg.timerq, &r->timer);
    bus_unmap(r->cfg.ports, RTC_PORT);
    pthread_mutex_destroy(&r->lock);
}

void rtc_reset(struct rtc *r)
{
    pthread_mutex_lock(&r->lock);
    r->cmos[REG_B] &= (uint8_t)~C_FLAGS;
    r->cmos[REG_C] = 0;
    r->nmi_masked = false;
    update_irq(r);
    timer_cancel(r->cfg.timerq, &r->timer);
    pthread_mutex_unlock(&r->lock);
}
