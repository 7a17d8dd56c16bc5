/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Registers, descriptors and mailbox of the 82576 virtual function, as far as
 * the tests need them (82576 datasheet, chapters 7 and 8).
 */
#ifndef HOSTILE_VF_REGS_H
#define HOSTILE_VF_REGS_H

#define VF_BAR0_LEN		0x4000
#define VF_QUEUES		2

/* Configuration space. */
#define VF_PCI_COMMAND		0x04
#define VF_PCI_COMMAND_MEMORY	(1u << 1)
#define VF_PCI_COMMAND_MASTER	(1u << 2)

#define VF_CTRL			0x0000
#define VF_CTRL_RST		(1u << 26)
#define VF_STATUS		0x0008
#define VF_STATUS_LU		(1u << 1)
#define VF_EICS			0x1520
#define VF_EIMS			0x1524
#define VF_EIMC			0x1528
#define VF_EIAC			0x152c
#define VF_EIAM			0x1530
#define VF_EICR			0x1580
#define VF_EITR(n)		(0x1680 + 4 * (n))
#define VF_IVAR0		0x1700
#define VF_IVAR_MISC		0x1740

/* Queue registers; queue 1 is at +0x100. */
#define VF_RXQ			0x2800
#define VF_TXQ			0x3800
#define VF_QUEUE_STRIDE		0x0100
#define VF_BAL			0x00
#define VF_BAH			0x04
#define VF_LEN			0x08
#define VF_SRRCTL		0x0c
#define VF_HEAD			0x10
#define VF_TAIL			0x18
#define VF_QCTL			0x28
#define VF_QCTL_ENABLE		(1u << 25)
#define VF_TDWBAL		0x38
#define VF_TDWBAH		0x3c

/* SRRCTL: one 2 KiB buffer per descriptor, drop when there is none. */
#define VF_SRRCTL_ONEBUF	(1u << 25)
#define VF_SRRCTL_DROP		(1u << 31)
#define VF_SRRCTL_2K		2u

/* Mailbox (datasheet 8.14.3, 8.14.4). */
#define VF_MBX			0x0c40
#define VF_MBX_REQ		(1u << 0)
#define VF_MBX_ACK		(1u << 1)
#define VF_MBX_VFU		(1u << 2)
#define VF_MBX_PFSTS		(1u << 4)
#define VF_MBX_PFACK		(1u << 5)
#define VF_MBX_RSTI		(1u << 6)
#define VF_MBX_RSTD		(1u << 7)
#define VF_MBX_STICKY		(VF_MBX_PFSTS | VF_MBX_PFACK | VF_MBX_RSTD)
#define VF_MBMEM		0x0800
#define VF_MBMEM_WORDS		16

#define VF_MSG_RESET		0x01
#define VF_MSG_SET_MAC		0x02
#define VF_MSG_SET_MULTICAST	0x03
#define VF_MSG_SET_VLAN		0x04
#define VF_MSG_SET_LPE		0x05
#define VF_MSG_SET_PROMISC	0x06
#define VF_MSG_ACK		(1u << 31)
#define VF_MSG_NACK		(1u << 30)
#define VF_MSG_CTS		(1u << 29)

/* Advanced transmit descriptor, second word (datasheet 7.2.2.3). */
#define TXD_LEN_MASK		0xffffull
#define TXD_DTYP_CONTEXT	(2ull << 20)
#define TXD_DTYP_DATA		(3ull << 20)
#define TXD_EOP			(1ull << 24)
#define TXD_IFCS		(1ull << 25)
#define TXD_RS			(1ull << 27)
#define TXD_DEXT		(1ull << 29)
#define TXD_VLE			(1ull << 30)
#define TXD_TSE			(1ull << 31)
#define TXD_DD			(1ull << 32)
#define TXD_POPTS_IXSM		(1ull << 40)
#define TXD_POPTS_TXSM		(1ull << 41)
#define TXD_PAYLEN(n)		((uint64_t)(n) << 46)
#define TXD_SIMPLE		(TXD_DTYP_DATA | TXD_DEXT | TXD_EOP | TXD_IFCS | TXD_RS)

/* Receive write-back, second word (datasheet 7.1.5.2). */
#define RXD_DD			(1ull << 0)
#define RXD_EOP			(1ull << 1)
#define RXD_LEN(word)		(((word) >> 32) & 0xffff)

#endif
