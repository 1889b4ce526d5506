#include "dev/serial.h"

#include "base/bits.h"
#include "dev/bytes.h"

#include <errno.h>

enum { REG_DATA, REG_IER, REG_IIR_FCR, REG_LCR, REG_MCR, REG_LSR, REG_MSR, REG_SCR, REG_COUNT };

#define IER_RDA  0x01
#define IER_THRE 0x02
#define IER_RLS  0x04
#define IER_MSI  0x08

#define IIR_NONE 0x01
#define IIR_MSI  0x00
#define IIR_THRE 0x02
#define IIR_RDA  0x04
#define IIR_RLS  0x06
#define IIR_CTI  0x0c
#define IIR_FIFO 0xc0

#define FCR_ENABLE   0x01
#define FCR_CLEAR_RX 0x02
#define FCR_CLEAR_TX 0x04

#define LCR_DLAB 0x80
#define MCR_LOOP 0x10

#define LSR_DR       0x01
#define LSR_OE       0x02
#define LSR_BI       0x10
#define LSR_THRE     0x20
#define LSR_TEMT     0x40
#define LSR_FIFO_ERR 0x80

#define MSR_LINES_UP 0xb0 /* DCD, DSR, CTS: the far end is always there */

/* How long an LSR read may hold a vCPU while the host's reader is behind. It turns a driver's poll loop into waiting,
 * so that its timeout, counted in polls, outlives a slow reader. */
#define BUSY_POLL_MS 1

/* ---- FIFOs ---- */

static void fifo_push(struct serial_fifo *f, uint8_t b)
{
    f->byte[(f->at + f->n++) % SERIAL_FIFO] = b;
}

static uint8_t fifo_pop(struct serial_fifo *f)
{
    uint8_t b = f->byte[f->at];
    f->at = (f->at + 1) % SERIAL_FIFO;
    f->n--;
    return b;
}

static unsigned fifo_depth(const struct serial *s)
{
    return s->fcr & FCR_ENABLE ? SERIAL_FIFO : 1;
}

static unsigned rx_trigger(const struct serial *s)
{
    static const uint8_t level[4] = {1, 4, 8, 14};
    return s->fcr & FCR_ENABLE ? level[s->fcr >> 6] : 1;
}

/* Four character times in ns: start, data, parity and stop bits at 115200 baud over the divisor. */
static uint64_t timeout_ns(const struct serial *s)
{
    unsigned nbits = 1 + 5 + (s->lcr & 3) + (s->lcr >> 3 & 1) + 1 + (s->lcr >> 2 & 1);
    return UINT64_C(4) * nbits * (s->divisor ? s->divisor : 1) * NS_PER_SEC / 115200;
}

/* ---- interrupts (lock held) ---- */

/* Interrupt identification, highest priority first. PC16550D, 8.5 "Interrupt Identification Register". */
static uint8_t pending(const struct serial *s)
{
    if (s->ier & IER_RLS && s->lsr_errors)
        return IIR_RLS;
    if (s->ier & IER_RDA && s->timed_out)
        return IIR_CTI;
    if (s->ier & IER_RDA && s->rx.n >= rx_trigger(s))
        return IIR_RDA;
    if (s->ier & IER_THRE && s->thri)
        return IIR_THRE;
    if (s->ier & IER_MSI && s->msr_delta)
        return IIR_MSI;
    return IIR_NONE;
}

static void update_irq(struct serial *s)
{
    irq_line_set(&s->cfg.irq, pending(s) != IIR_NONE);
}

static void arm_timeout(struct serial *s)
{
    s->timed_out = false;
    if (s->fcr & FCR_ENABLE && s->rx.n)
        timer_arm(s->cfg.timerq, &s->timeout, guest_clock_now(s->cfg.clock) + timeout_ns(s));
    else
        timer_cancel(s->cfg.timerq, &s->timeout);
}

static void on_timeout(void *opaque, uint64_t now)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->lock);
    s->timed_out = s->fcr & FCR_ENABLE && s->rx.n;
    update_irq(s);
    pthread_mutex_unlock(&s->lock);
}

/* ---- data (lock held) ---- */

/* Move the transmit FIFO to the host as far as it takes it. THRE goes high, and its interrupt pends, when it is empty.
 */
static void tx_drain(struct serial *s)
{
    while (s->tx.n && (!s->cfg.chr || chardev_put(s->cfg.chr, s->tx.byte[s->tx.at])))
        fifo_pop(&s->tx);
    if (!s->tx.n)
        s->thri = true;
}

static void rx_push(struct serial *s, uint8_t b)
{
    if (s->rx.n >= fifo_depth(s)) {
        s->lsr_errors |= LSR_OE;
        return;
    }
    fifo_push(&s->rx, b);
    arm_timeout(s);
}

static uint8_t read_rbr(struct serial *s)
{
    if (!s->rx.n)
        return 0;
    uint8_t b = fifo_pop(&s->rx);
    arm_timeout(s);
    update_irq(s);
    return b;
}

static void write_thr(struct serial *s, uint8_t b)
{
    s->thri = false;
    if (s->mcr & MCR_LOOP) {
        rx_push(s, b);
        s->thri = true;
    } else {
        if (s->tx.n < SERIAL_FIFO)
            fifo_push(&s->tx, b);
        tx_drain(s);
    }
    update_irq(s);
}

/* ---- registers (lock held) ---- */

/* MSR 7:4. In loopback the modem outputs come back as inputs. PC16550D, 8.6 "Modem Control Register". */
static uint8_t msr_lines(const struct serial *s)
{
    if (!(s->mcr & MCR_LOOP))
        return MSR_LINES_UP;
    uint8_t m = s->mcr;
    return (uint8_t)((m & 2) << 3 | (m & 1) << 5 | (m & 0xc) << 4);
}

static void write_mcr(struct serial *s, uint8_t val)
{
    uint8_t before = msr_lines(s);
    s->mcr = val & 0x1f;
    uint8_t after = msr_lines(s), changed = (uint8_t)((before ^ after) >> 4);
    /* RI counts only its trailing edge. */
    if (!(before & 0x40) || after & 0x40)
        changed &= (uint8_t)~4;
    s->msr_delta |= changed;
    update_irq(s);
}

static uint8_t read_lsr(struct serial *s)
{
    uint8_t v = s->lsr_errors;
    if (v & LSR_BI && s->fcr & FCR_ENABLE)
        v |= LSR_FIFO_ERR;
    v |= s->rx.n ? LSR_DR : 0;
    v |= s->tx.n ? 0 : LSR_THRE | LSR_TEMT;
    s->lsr_errors = 0;
    update_irq(s);
    return v;
}

static uint8_t read_iir(struct serial *s)
{
    uint8_t id = pending(s);
    if (id == IIR_THRE) {
        s->thri = false;
        update_irq(s);
    }
    return id | (s->fcr & FCR_ENABLE ? IIR_FIFO : 0);
}

/* Switching the interrupt on while the transmitter is empty makes it pend again: drivers test for that. */
static void write_ier(struct serial *s, uint8_t val)
{
    if (val & IER_THRE && !(s->ier & IER_THRE) && !s->tx.n)
        s->thri = true;
    s->ier = val & 0x0f;
    update_irq(s);
}

static void write_fcr(struct serial *s, uint8_t val)
{
    if ((val ^ s->fcr) & FCR_ENABLE)
        val |= FCR_CLEAR_RX | FCR_CLEAR_TX;
    if (val & FCR_CLEAR_TX && s->tx.n) {
        s->tx.n = 0;
        s->thri = true;
    }
    s->fcr = val & FCR_ENABLE ? val & 0xc9 : 0;
    if (val & FCR_CLEAR_RX)
        s->rx.n = 0;
    arm_timeout(s);
    update_irq(s);
}

static uint8_t read_msr(struct serial *s)
{
    uint8_t v = msr_lines(s) | s->msr_delta;
    s->msr_delta = 0;
    update_irq(s);
    return v;
}

static uint8_t read_locked(struct serial *s, unsigned reg)
{
    bool dlab = s->lcr & LCR_DLAB;
    switch (reg) {
    case REG_DATA:
        return dlab ? (uint8_t)s->divisor : read_rbr(s);
    case REG_IER:
        return dlab ? (uint8_t)(s->divisor >> 8) : s->ier;
    case REG_IIR_FCR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return read_lsr(s);
    case REG_MSR:
        return read_msr(s);
    default:
        return s->scr;
    }
}

static void write_locked(struct serial *s, unsigned reg, uint8_t val)
{
    bool dlab = s->lcr & LCR_DLAB;
    switch (reg) {
    case REG_DATA:
        if (dlab)
            s->divisor = (s->divisor & 0xff00) | val;
        else
            write_thr(s, val);
        break;
    case REG_IER:
        if (dlab)
            s->divisor = (uint16_t)((s->divisor & 0xff) | val << 8);
        else
            write_ier(s, val);
        break;
    case REG_IIR_FCR:
        write_fcr(s, val);
        break;
    case REG_LCR:
        s->lcr = val;
        break;
    case REG_MCR:
        write_mcr(s, val);
        break;
    case REG_SCR:
        s->scr = val;
        break;
    default: /* LSR and MSR: factory test only */
        break;
    }
}

/* ---- the bus ---- */

static uint8_t read_reg(void *opaque, unsigned reg)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->lock);
    if (reg == REG_LSR && s->tx.n) {
        pthread_mutex_unlock(&s->lock);
        chardev_wait_room(s->cfg.chr, BUSY_POLL_MS);
        pthread_mutex_lock(&s->lock);
        tx_drain(s);
    }
    bool had_input = s->rx.n;
    uint8_t v = read_locked(s, reg);
    bool drained = had_input && !s->rx.n;
    pthread_mutex_unlock(&s->lock);
    if (drained && s->cfg.chr)
        chardev_input_ready(s->cfg.chr);
    return v;
}

/* Lock held, given up while waiting: until at most `n` bytes are left in the transmit FIFO. */
static void wait_until(struct serial *s, unsigned n)
{
    while (s->tx.n > n) {
        pthread_mutex_unlock(&s->lock);
        chardev_wait_room(s->cfg.chr, -1);
        pthread_mutex_lock(&s->lock);
        tx_drain(s);
    }
}

/* A write past a full transmitter waits for the host's reader, whatever THRE said: a byte is never lost. */
static void write_reg(void *opaque, unsigned reg, uint8_t val)
{
    struct serial *s = opaque;
    pthread_mutex_lock(&s->lock);
    if (reg == REG_DATA)
        wait_until(s, SERIAL_FIFO - 1);
    write_locked(s, reg, val);
    if (s->cfg.wait_when_full)
        wait_until(s, 0);
    pthread_mutex_unlock(&s->lock);
    if ((reg == REG_IIR_FCR || reg == REG_MCR) && s->cfg.chr)
        chardev_input_ready(s->cfg.chr);
}

static uint64_t serial_read(void *dev, uint64_t off, unsigned size)
{
    return dev_read_bytes(read_reg, dev, off, size);
}

static void serial_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    dev_write_bytes(write_reg, dev, off, size, val);
}

static const struct bus_ops serial_ops = {serial_read, serial_write};

/* ---- the chardev's thread ---- */

static void lock_from_host(struct serial *s)
{
    if (s->epoch_slot >= 0)
        epoch_enter(s->cfg.epoch, s->epoch_slot);
    pthread_mutex_lock(&s->lock);
}

static void unlock_from_host(struct serial *s)
{
    pthread_mutex_unlock(&s->lock);
    if (s->epoch_slot >= 0)
        epoch_leave(s->cfg.epoch, s->epoch_slot);
}

static size_t host_input(void *opaque, const uint8_t *buf, size_t n)
{
    struct serial *s = opaque;
    size_t took = 0;
    lock_from_host(s);
    /* In loopback the receiver is cut off from the line; the bytes wait. */
    if (!(s->mcr & MCR_LOOP))
        while (took < n && s->rx.n < fifo_depth(s))
            rx_push(s, buf[took++]);
    update_irq(s);
    unlock_from_host(s);
    return took;
}

static void host_room(void *opaque)
{
    struct serial *s = opaque;
    lock_from_host(s);
    if (s->tx.n)
        tx_drain(s);
    update_irq(s);
    unlock_from_host(s);
}

/* A break is received as a zero byte with BI. */
static void host_break(void *opaque)
{
    struct serial *s = opaque;
    lock_from_host(s);
    s->lsr_errors |= LSR_BI;
    rx_push(s, 0);
    update_irq(s);
    unlock_from_host(s);
}

/* ---- lifecycle ---- */

static void reset_locked(struct serial *s)
{
    s->rx = (struct serial_fifo){.n = 0}; /* tx stays: what the guest has handed over is not lost by its reset */
    s->ier = s->fcr = s->lcr = s->mcr = s->scr = s->msr_delta = s->lsr_errors = 0;
    s->divisor = 12;
    s->thri = s->timed_out = false;
    timer_cancel(s->cfg.timerq, &s->timeout);
    update_irq(s);
}

void serial_reset(struct serial *s)
{
    pthread_mutex_lock(&s->lock);
    reset_locked(s);
    pthread_mutex_unlock(&s->lock);
}

int serial_init(struct serial *s, const struct serial_config *c, struct err *e)
{
    *s = (struct serial){.cfg = *c, .epoch_slot = -1};
    pthread_mutex_init(&s->lock, NULL);
    timer_init(&s->timeout, on_timeout, s);
    if (c->epoch && c->chr)
        s->epoch_slot = epoch_slot(c->epoch);
    reset_locked(s);
    const struct bus_region r = {c->base, REG_COUNT, &serial_ops, s, "serial"};
    const struct chardev_client client = {host_input, host_room, host_break, s};
    int rc = bus_map(c->ports, &r, e);
    if (rc == 0 && c->epoch && c->chr && s->epoch_slot < 0)
        rc = err_set(e, -EMFILE, "serial: no reader slot is left for the character device's thread");
    if (rc == 0 && c->chr)
        rc = chardev_attach(c->chr, &client, e);
    if (rc < 0)
        serial_fini(s);
    return rc;
}

void serial_fini(struct serial *s)
{
    timer_cancel(s->cfg.timerq, &s->timeout);
    bus_unmap(s->cfg.ports, s->cfg.base);
    pthread_mutex_destroy(&s->lock);
}
