/* Registers, the PHY and the NVM behind them. 82574, 10 "Driver Programing Interface". */
#include "dev/e1000e_priv.h"

#define NVM_SUM 0xbaba /* of words 00h .. 3Fh */

/* ---- which registers there are ---- */

/* Words a guest may write as it likes, with the bits that stay. What is not listed reads 0 and takes nothing, but for
 * those that writable() below gives a meaning. */
static const struct {
    uint32_t first, last, mask;
} plain[] = {
    {R_CTRL_EXT, R_CTRL_EXT, ~(CTRL_EXT_PBA | 1u << 13)},
    {0x0028, 0x003c, UINT32_MAX}, /* FCAL, FCAH, FCT, VET, FEXTNVM */
    {R_ITR, R_ITR, 0xffff},
    {R_EIAC, R_EIAC, C_VECTORS},
    {R_IAM, R_IVAR, UINT32_MAX},
    {R_EITR, R_EITR + 4 * E1K_VECTORS - 4, 0xffff},
    {0x0170, 0x0178, UINT32_MAX}, /* FCTTV, TXCW, RXCW */
    {R_TIPG, R_TIPG, UINT32_MAX},
    {0x0458, 0x0458, UINT32_MAX}, /* AIT */
    {R_LEDCTL, R_LEDCTL, UINT32_MAX},
    {R_EXTCNF, 0x0f10, UINT32_MAX}, /* EXTCNF, PHY_CTRL */
    {R_PBA, 0x1010, UINT32_MAX},    /* PBA, PBS, EEMNGCTL */
    {0x2160, R_PSRCTL, UINT32_MAX}, /* FCRTL, FCRTH, PSRCTL */
    {0x2820, R_RXDCTL + 4, UINT32_MAX},
    {0x2920, R_RXDCTL + E1K_QUEUE + 4, UINT32_MAX},
    {0x2c00, 0x2c00, UINT32_MAX}, /* RSRPD */
    {0x3820, 0x3840, UINT32_MAX}, /* TIDV .. TARC0 */
    {0x3920, 0x3940, UINT32_MAX},
    {R_RXCSUM, R_RFCTL, UINT32_MAX},
    {R_MTA, R_MTA + 0x1fc, UINT32_MAX},
    {R_RA, R_RA + 0x7c, UINT32_MAX},
    {R_VFTA, R_VFTA + 0x1fc, UINT32_MAX},
    {0x5800, 0x5838, UINT32_MAX}, /* WUC .. IPAV, MRQC; none wakes anybody */
    {0x5b50, 0x5b5c, UINT32_MAX}, /* SWSM, FWSM, SWSM2 */
    {0x5b00, 0x5b30, UINT32_MAX}, /* GCR and its kind */
    {0x5c00, 0x5cff, UINT32_MAX}, /* RETA, RSSRK */
};

static bool plain_mask(unsigned reg, uint32_t *mask)
{
    for (unsigned i = 0; i < ARRAY_SIZE(plain); i++)
        if (reg >= plain[i].first && reg <= plain[i].last) {
            *mask = plain[i].mask;
            return true;
        }
    return false;
}

/* ---- NVM. 3.3 "Non-Volatile Memory", 6 "Non-Volatile Memory Map" ---- */

void e1k_nvm_init(struct e1000e *n)
{
    static const uint16_t words[][2] = {{0x03, 0x0420}, {0x04, 0xffff}, {0x05, 0x2010}, {0x06, 0xffff}, {0x07, 0xffff},
                                        {0x0a, 0x026b}, {0x0b, 0x0000}, {0x0c, 0x8086}, {0x0d, 0x10d3}, {0x0e, 0xffff},
                                        {0x0f, 0x8058}, {0x10, 0xffff}, {0x18, 0x0602}, {0x19, 0x7e96}, {0x1a, 0x0f78}};
    uint16_t sum = 0;
    for (unsigned i = 0; i < 3; i++)
        n->nvm[i] = (uint16_t)(n->mac[2 * i] | n->mac[2 * i + 1] << 8);
    for (unsigned i = 0; i < ARRAY_SIZE(words); i++)
        n->nvm[words[i][0]] = words[i][1];
    for (unsigned i = 0; i < E1K_NVM_WORDS - 1; i++)
        sum = (uint16_t)(sum + n->nvm[i]);
    n->nvm[E1K_NVM_WORDS - 1] = (uint16_t)(NVM_SUM - sum);
}

/* 10.2.2.3 "EEPROM Read Register": the answer is there at once. */
static void eerd_write(struct e1000e *n, uint32_t val)
{
    unsigned word = val >> 2 & 0x3fff;
    uint32_t data = word < E1K_NVM_WORDS ? n->nvm[word] : 0xffff;
    e1k_set(n, R_EERD, val & 1 ? data << 16 | (val & 0xfffc) | 2 : val & 0xfffc);
}

/* ---- PHY. 10.2.9 "PHY Registers" ---- */

enum { PHY_CONTROL = 0, PHY_PAGE = 22 };
#define PHY_RESETS 0x8200u /* reset and restart of autonegotiation are over at once */

static void phy_reset(struct e1000e *n)
{
    static const uint16_t power_on[E1K_PHY_REGS] = {
        [0] = 0x1140, [1] = 0x796d,  [2] = 0x0141,  [3] = 0x0cb1,  [4] = 0x0de1,  [5] = 0x45e1,  [6] = 0x000f,
        [9] = 0x0300, [10] = 0x3c00, [15] = 0x3000, [16] = 0x0068, [17] = 0xac08, [20] = 0x0060, [26] = 0x000a};
    for (unsigned i = 0; i < E1K_PHY_REGS; i++)
        atomic_store(&n->phy[i], power_on[i]);
}

/* Registers 0 to 15 and the page register are on every page, others on page 0 alone. */
static bool phy_has(struct e1000e *n, unsigned reg)
{
    return reg < 16 || reg == PHY_PAGE || reg >= 28 || !atomic_load(&n->phy[PHY_PAGE]);
}

static void phy_write(struct e1000e *n, unsigned reg, uint16_t val)
{
    static const uint32_t read_only =
        1u << 1 | 1u << 2 | 1u << 3 | 1u << 5 | 1u << 6 | 1u << 10 | 1u << 15 | 1u << 17 | 1u << 19 | 1u << 21;
    if (!phy_has(n, reg) || read_only >> reg & 1)
        return;
    if (reg == PHY_CONTROL)
        val &= (uint16_t)~PHY_RESETS;
    atomic_store(&n->phy[reg], val);
}

/* 10.2.2.7 "MDI Control Register". */
static void mdic_write(struct e1000e *n, uint32_t val)
{
    enum { WRITE = 1, READ = 2, READY = 1u << 28, INT_ENABLE = 1u << 29, ERROR = 1u << 30, ADDRESS = 1 };
    unsigned reg = val >> 16 & 0x1f, op = val >> 26 & 3;
    uint32_t done = (val & ~(uint32_t)ERROR) | READY;
    if ((val >> 21 & 0x1f) != ADDRESS)
        done |= ERROR;
    else if (op == WRITE)
        phy_write(n, reg, (uint16_t)val);
    else if (op == READ)
        done = (done & 0xffff0000) | (phy_has(n, reg) ? atomic_load(&n->phy[reg]) : 0);
    e1k_set(n, R_MDIC, done);
    if (val & INT_ENABLE)
        e1k_raise(n, C_MDAC);
}

/* ---- reset ---- */

void e1k_regs_reset(struct e1000e *n)
{
    static const uint32_t power_on[][2] = {
        {R_CTRL, 0x00140241},   {R_EECD, EECD_PRES | EECD_AUTO_RD},
        {R_VET, 0x8100},        {R_TIPG, 0x00602008},
        {R_LEDCTL, 0x07068302}, {R_PBA, 0x00140014},
        {R_RXDCTL, 0x00010000}, {R_RXDCTL + E1K_QUEUE, 0x00010000},
        {R_TARC0, 3},           {R_TARC0 + E1K_QUEUE, 3},
        {R_PSRCTL, 0x00040402}, {R_RXCSUM, 0x300},
        {R_EXTCNF, 0x00000008}, {R_IVAR, 0},
    };
    for (unsigned reg = 0; reg < E1K_MMIO; reg += 4)
        e1k_set(n, reg, 0);
    for (unsigned i = 0; i < ARRAY_SIZE(power_on); i++)
        e1k_set(n, power_on[i][0], power_on[i][1]);
    e1k_set(n, R_RA, ld32(n->mac));
    e1k_set(n, R_RA + 4, ld16(n->mac + 4) | 1u << 31);
    phy_reset(n);
}

/* ---- reading ---- */

static bool is_statistic(unsigned reg)
{
    return reg >= R_STATS && reg < R_STATS_END;
}

/* 10.2.2.2 "Device Status Register". */
static uint32_t status(struct e1000e *n)
{
    return STATUS_FD | STATUS_LU | STATUS_1000 | STATUS_ASDV_1000 | (atomic_load(&n->mastering) ? STATUS_MASTER : 0);
}

/* Whether a reset is under way is asked before the register is read: during one it may be anything. */
static uint32_t reg_read(struct e1000e *n, unsigned reg)
{
    if (reg == R_CTRL || reg == R_STATUS || reg == R_EECD)
        e1k_look(n);
    bool resetting = e1k_resetting(n);
    switch (reg) {
    case R_CTRL:
        return e1k_get(n, reg) | (resetting ? CTRL_RST : 0);
    case R_STATUS:
        return status(n);
    case R_EECD:
        return e1k_get(n, reg) & ~(resetting ? EECD_AUTO_RD : 0);
    case R_ICR:
        return e1k_icr_read(n);
    case R_ICS:
        return e1k_get(n, R_ICR);
    case R_IMC:
        return 0;
    default:
        return is_statistic(reg) ? atomic_exchange(&n->reg[reg / 4], 0) : e1k_get(n, reg);
    }
}

/* ---- writing ---- */

/* 10.2.2.1 "Device Control Register". */
static void ctrl_write(struct e1000e *n, uint32_t val)
{
    if (val & CTRL_PHY_RST)
        phy_reset(n);
    if (val & CTRL_RST)
        atomic_fetch_add(&n->resets_wanted, 1);
    else
        e1k_set(n, R_CTRL, val & ~CTRL_PHY_RST);
    ioloop_ring(n->loop, &n->state_bell);
}

/* Base, length, head and tail of a queue: `off` from its first register. */
static void queue_write(struct e1000e *n, unsigned reg, uint32_t val, struct ioloop_bell *bell)
{
    static const uint32_t mask[] = {
        [0x00 / 4] = ~15u, [0x04 / 4] = UINT32_MAX, [0x08 / 4] = 0xfff80, [0x10 / 4] = 0xffff, [0x18 / 4] = 0xffff};
    unsigned off = reg & 0xff;
    if (off / 4 >= ARRAY_SIZE(mask) || !mask[off / 4])
        return;
    e1k_set(n, reg, val & mask[off / 4]);
    if (off != 0x18)
        return;
    atomic_thread_fence(memory_order_seq_cst); /* the tail before `starved` */
    if (bell == &n->tx_bell || atomic_load(&n->starved))
        ioloop_ring(n->loop, bell);
}

static void other_write(struct e1000e *n, unsigned reg, uint32_t val)
{
    uint32_t mask;
    if (!plain_mask(reg, &mask)) {
        trace(n->trace, TRACE_DEV, "e1000e: register %05x does not take %08x", reg, val);
        return;
    }
    e1k_set(n, reg, val & mask);
}

/* During a reset nothing is written: what would come before it and what after is not to be told apart. */
static void reg_write(struct e1000e *n, unsigned reg, uint32_t val)
{
    unsigned queue = reg & ~0xffu;
    if (e1k_resetting(n))
        e1k_look(n);
    if (e1k_resetting(n))
        return;
    if (queue == R_RDBAL || queue == R_RDBAL + E1K_QUEUE || queue == R_TDBAL || queue == R_TDBAL + E1K_QUEUE) {
        if ((reg & 0xff) <= 0x18) {
            queue_write(n, reg, val, reg >= R_TDBAL ? &n->tx_bell : &n->rx_bell);
            return;
        }
    }
    switch (reg) {
    case R_CTRL:
        ctrl_write(n, val);
        break;
    case R_EERD:
        eerd_write(n, val);
        break;
    case R_MDIC:
        mdic_write(n, val);
        break;
    case R_ICR:
        e1k_icr_write(n, val);
        break;
    case R_ICS:
        e1k_raise(n, val & ~C_ASSERTED);
        break;
    case R_IMS:
        e1k_mask(n, val & ~C_ASSERTED, 0);
        break;
    case R_IMC:
        e1k_mask(n, 0, val);
        break;
    case R_RCTL:
    case R_TCTL:
        e1k_set(n, reg, val);
        ioloop_ring(n->loop, reg == R_RCTL ? &n->rx_bell : &n->tx_bell);
        break;
    default:
        other_write(n, reg, val);
    }
}

/* ---- BARs ---- */

/* Registers are words; an access of another size reads its part, and writes nothing unless it covers whole words. */
static uint64_t mmio_read(void *dev, uint64_t off, unsigned size)
{
    struct e1000e *n = dev;
    unsigned reg = (unsigned)off & ~3u;
    uint64_t val = reg_read(n, reg);
    if (size == 8 && !(off & 3) && reg + 4 < E1K_MMIO)
        return val | (uint64_t)reg_read(n, reg + 4) << 32;
    return val >> (off % 4 * 8) & size_mask(size);
}

static void mmio_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct e1000e *n = dev;
    if (size < 4 || off & 3)
        return;
    reg_write(n, (unsigned)off, (uint32_t)val);
    if (size == 8 && off + 4 < E1K_MMIO)
        reg_write(n, (unsigned)off + 4, (uint32_t)(val >> 32));
}

const struct bus_ops e1k_mmio_ops = {mmio_read, mmio_write};

/* 10.1.1.5 "I/O-Mapped Internal Register, Internal Memory": IOADDR at 0, IODATA at 4. */
static uint64_t io_read(void *dev, uint64_t off, unsigned size)
{
    struct e1000e *n = dev;
    uint32_t at = atomic_load(&n->io_address);
    if (off == 0)
        return at & size_mask(size);
    return off == 4 && at < E1K_MMIO ? mmio_read(n, at & ~3u, size) : 0;
}

static void io_write(void *dev, uint64_t off, unsigned size, uint64_t val)
{
    struct e1000e *n = dev;
    uint32_t at = atomic_load(&n->io_address);
    if (off == 0 && size == 4)
        atomic_store(&n->io_address, (uint32_t)val);
    else if (off == 4 && size == 4 && at < E1K_MMIO)
        mmio_write(n, at & ~3u, 4, val);
}

const struct bus_ops e1k_io_ops = {io_read, io_write};
