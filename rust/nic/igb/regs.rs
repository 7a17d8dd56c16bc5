// SPDX-License-Identifier: GPL-2.0

//! Registers of the 82576 family, by scope.
//!
//! Names and offsets as in chapter 8 of the 82576 datasheet, where the chapter's sections go by
//! topic: 8.2 general, 8.8 interrupts, 8.10 receive, 8.12 transmit, 8.14 virtualization, 8.19
//! statistics. Fields that this driver never touches are left out.

use kernel::io::register;

/// Bytes of BAR 0 that hold the registers below.
pub(super) const REGION_BYTES: usize = 0x1_0000;
/// Queues of each direction that have registers.
pub(super) const QUEUES: usize = 16;
/// Pools that have registers.
pub(super) const POOLS: usize = 8;
/// Interrupt vectors that have a throttle register.
pub(super) const EITRS: usize = 25;

// Global: device and bus (8.2)

register! {
    /// Device control.
    pub(super) CTRL(u32) @ 0x0000 {
        /// Software reset of the port; clears itself.
        26:26 rst;
        /// Force speed.
        11:11 frcspd;
        /// Force duplex.
        12:12 frcdpx;
        /// Receive flow control.
        27:27 rfce;
        /// Transmit flow control.
        28:28 tfce;
        /// Set link up: let the MAC talk to the PHY.
        6:6 slu;
        /// No new requests as bus master.
        2:2 gio_master_disable;
    }

    /// Device status.
    pub(super) STATUS(u32) @ 0x0008 {
        /// Requests as bus master are pending or allowed.
        19:19 gio_master_enable;
        /// Link speed: 0 is 10 Mb/s, 1 is 100 Mb/s, 2 and 3 are 1000 Mb/s.
        7:6 speed;
        /// PCI function number, which is the number of the port.
        3:2 lan_id;
        /// Link up.
        1:1 lu;
    }

    /// EEPROM control.
    pub(super) EEC(u32) @ 0x0010 {
        /// The configuration has been read from the EEPROM after a reset.
        9:9 auto_rd;
    }

    /// Extended device control.
    pub(super) CTRL_EXT(u32) @ 0x0018 {
        /// Tells firmware that a driver owns the port.
        28:28 drv_load;
        /// Kind of link; 0 is the internal copper PHY.
        23:22 link_mode;
    }

    /// Access to the PHY's registers.
    pub(super) MDIC(u32) @ 0x0020 {
        /// The PHY did not answer.
        30:30 error;
        /// The access is complete.
        28:28 ready;
        /// 1 writes, 2 reads.
        27:26 op;
        /// PHY address.
        25:21 phy;
        /// PHY register.
        20:16 reg;
        /// Data written or read.
        15:0 data;
    }

    /// Flow control, refresh timer: unused, since flow control is off.
    pub(super) FCTTV(u32) @ 0x0170 {}
    /// Flow control, low threshold.
    pub(super) FCRTL(u32) @ 0x2160 {}
    /// Flow control, high threshold.
    pub(super) FCRTH(u32) @ 0x2168 {}

    /// Semaphore between drivers and firmware.
    pub(super) SWSM(u32) @ 0x5b50 {
        /// Held by software; latches only while firmware does not hold it.
        1:1 swesmbi;
        /// Held by a driver; a read that returns 0 takes it.
        0:0 smbi;
    }

    /// Resources shared with firmware: bits 31:16 are firmware's, 15:0 software's.
    pub(super) SW_FW_SYNC(u32) @ 0x5b5c {
        31:16 firmware;
        15:0 software;
    }
}

// Global: interrupts (8.8)

register! {
    /// Interrupt causes other than queues; reading clears.
    pub(super) ICR(u32) @ 0x00c0 {
        /// Link status change.
        2:2 lsc;
    }

    /// Enables causes.
    pub(super) IMS(u32) @ 0x00d0 {
        2:2 lsc;
    }

    /// Disables causes.
    pub(super) IMC(u32) @ 0x00d8 {}

    /// Causes to disable when ICR is read.
    pub(super) IAM(u32) @ 0x00e0 {}

    /// General purpose interrupt enable.
    pub(super) GPIE(u32) @ 0x1514 {
        /// Pending bits of the MSI-X table follow EICR.
        31:31 pba_support;
        /// EIAM masks a vector when it fires.
        30:30 eiame;
        /// Vectors instead of one interrupt.
        4:4 multiple_msix;
        /// Reading ICR clears it whatever IMS says.
        0:0 nsicr;
    }

    /// Enables vectors.
    pub(super) EIMS(u32) @ 0x1524 {}
    /// Disables vectors.
    pub(super) EIMC(u32) @ 0x1528 {}
    /// Vectors whose cause clears when they fire.
    pub(super) EIAC(u32) @ 0x152c {}
    /// Vectors that are disabled when they fire.
    pub(super) EIAM(u32) @ 0x1530 {}
    /// Causes of vectors; writing 1 clears.
    pub(super) EICR(u32) @ 0x1580 {}

    /// Vectors of the queues `n` and `n + 8`.
    pub(super) IVAR(u32)[8] @ 0x1700 {
        31:24 tx_high;
        23:16 rx_high;
        15:8 tx_low;
        7:0 rx_low;
    }

    /// Vector of all other causes.
    pub(super) IVAR_MISC(u32) @ 0x1740 {
        15:8 other;
    }

    /// Throttle of a vector; 0 is none.
    pub(super) EITR(u32)[EITRS] @ 0x1680 {}
}

// Per port: receive (8.10)

register! {
    /// Receive control.
    pub(super) RCTL(u32) @ 0x0100 {
        /// Strip the frame check sequence.
        26:26 secrc;
        /// VLAN filter.
        18:18 vfe;
        /// Accept broadcast.
        15:15 bam;
        /// Accept frames longer than 1522 bytes.
        5:5 lpe;
        /// Enable.
        1:1 en;
    }

    /// Queues that drop when they have no descriptors, instead of holding up the others.
    pub(super) QDE(u32) @ 0x2408 {
        15:0 queues;
    }

    /// Checksums of received frames.
    pub(super) RXCSUM(u32) @ 0x5000 {
        /// No raw packet checksum in the write-back.
        13:13 pcsd;
        /// SCTP.
        11:11 crcofl;
        /// TCP and UDP.
        9:9 tuofld;
        /// IPv4.
        8:8 ipofld;
    }

    /// Longest frame the port accepts, with FCS.
    pub(super) RLPML(u32) @ 0x5004 {
        13:0 bytes;
    }

    /// Receive filter control.
    pub(super) RFCTL(u32) @ 0x5008 {
        /// No parsing of IPv6 extension headers (`igb_rx_fifo_flush_82575`: an erratum).
        16:16 ipv6_ex_dis;
    }

    /// Multicast hash table.
    pub(super) MTA(u32)[128] @ 0x5200 {}
    /// VLAN bitmap.
    pub(super) VFTA(u32)[128] @ 0x5600 {}
    /// Unicast hash table.
    pub(super) UTA(u32)[128] @ 0xa000 {}

    /// Address filters: bytes 0 to 3.
    pub(super) RAL(u32)[16, stride = 8] @ 0x5400 {}

    /// Address filters: bytes 4 and 5.
    pub(super) RAH(u32)[16, stride = 8] @ 0x5404 {
        /// The entry is valid.
        31:31 av;
        /// Pools that receive the address.
        25:18 pools;
        15:0 addr;
    }

    /// Address filters 16 to 23: bytes 0 to 3.
    pub(super) RAL_UPPER(u32)[8, stride = 8] @ 0x54e0 {}
    /// Address filters 16 to 23: as [`RAH`].
    pub(super) RAH_UPPER(u32)[8, stride = 8] @ 0x54e4 {}

    /// Receive queue selection.
    pub(super) MRQC(u32) @ 0x5818 {
        /// 3 selects by pool (VMDq), without RSS.
        2:0 mode;
    }

    /// Ethertype filters.
    pub(super) ETQF(u32)[8] @ 0x5cb0 {}
}

// Per port: transmit (8.12)

register! {
    /// Transmit control.
    pub(super) TCTL(u32) @ 0x0400 {
        /// Retransmit on late collision.
        24:24 rtlc;
        /// Collision distance in bytes; matters at half duplex only.
        21:12 cold;
        /// Collision threshold.
        11:4 ct;
        /// Pad short frames.
        3:3 psp;
        /// Enable.
        1:1 en;
    }

    /// DMA transmit control.
    pub(super) DTXCTL(u32) @ 0x3590 {
        /// Interrupt on a spoofed frame.
        6:6 spoof_int;
        /// Frames may come with a VLAN tag in the descriptor.
        3:3 vlan_added;
    }
}

// Per port: virtualization (8.14)

register! {
    /// Pools that may receive.
    pub(super) VFRE(u32) @ 0x0c8c {
        7:0 pools;
    }

    /// Pools that may transmit.
    pub(super) VFTE(u32) @ 0x0c90 {
        7:0 pools;
    }

    /// Switch between pools.
    pub(super) DTXSWC(u32) @ 0x3500 {
        /// Frames of one pool to another's address go there.
        31:31 loopback_en;
        /// Pools that receive what they send to themselves.
        23:16 local_loopback;
        /// Pools whose VLAN is checked.
        15:8 vlan_antispoof;
        /// Pools whose source address is checked.
        7:0 mac_antispoof;
    }

    /// Pools that were caught spoofing; reading clears.
    pub(super) WVBR(u32) @ 0x3554 {}

    /// VMDq control.
    pub(super) VT_CTL(u32) @ 0x581c {
        /// One frame goes to several pools.
        30:30 replication;
        /// Frames for nobody are dropped.
        29:29 disable_default_pool;
    }

    /// Treatment of frames that go to several pools; the same bits as [`VMOLR`].
    pub(super) RPLOLR(u32) @ 0x5af0 {
        31:31 strcrc;
        30:30 strvlan;
    }
}

// Per pool (8.14)

register! {
    /// What a pool accepts, and how.
    pub(super) VMOLR(u32)[POOLS] @ 0x5ad0 {
        /// Strip the frame check sequence.
        31:31 strcrc;
        /// Move the VLAN tag into the write-back.
        30:30 strvlan;
        /// All multicast.
        28:28 mpe;
        /// Broadcast.
        27:27 bam;
        /// Unicast by the shared hash table.
        26:26 rope;
        /// Multicast by the shared hash table.
        25:25 rompe;
        /// Frames without a VLAN tag.
        24:24 aupe;
        /// RSS within the pool.
        17:17 rsse;
        /// Frames longer than 1522 bytes, up to `rlpml`.
        16:16 lpe;
        /// Longest frame in bytes, with FCS.
        13:0 rlpml;
    }

    /// VLANs and their pools.
    pub(super) VLVF(u32)[32] @ 0x5d00 {
        /// The entry is valid.
        31:31 vi_en;
        /// Member pools.
        19:12 pools;
        11:0 vid;
    }

    /// VLAN that the NIC inserts on transmit; 0 leaves it to the descriptor.
    pub(super) VMVIR(u32)[POOLS] @ 0x3700 {
        /// 1 inserts `tag` into every frame, whatever the descriptor says.
        31:30 action;
        15:0 tag;
    }
}

// Per receive queue (8.10)

register! {
    /// Ring address, low.
    pub(super) RDBAL(u32)[QUEUES, stride = 0x40] @ 0xc000 {}
    /// Ring address, high.
    pub(super) RDBAH(u32)[QUEUES, stride = 0x40] @ 0xc004 {}
    /// Ring length in bytes.
    pub(super) RDLEN(u32)[QUEUES, stride = 0x40] @ 0xc008 {}

    /// Split and replication.
    pub(super) SRRCTL(u32)[QUEUES, stride = 0x40] @ 0xc00c {
        /// Drop when there are no descriptors.
        31:31 drop_en;
        /// 1 is one buffer, 5 always splits off the header.
        27:25 desctype;
        /// Header buffer in 64 bytes.
        13:8 bsizeheader;
        /// Packet buffer in 1024 bytes.
        6:0 bsizepacket;
    }

    /// Next descriptor that the NIC fills.
    pub(super) RDH(u32)[QUEUES, stride = 0x40] @ 0xc010 {}
    /// First descriptor that is not valid.
    pub(super) RDT(u32)[QUEUES, stride = 0x40] @ 0xc018 {}

    /// Receive queue control.
    pub(super) RXDCTL(u32)[QUEUES, stride = 0x40] @ 0xc028 {
        /// Enable; reads 0 only once the queue is at rest.
        25:25 enable;
        /// Write-back threshold.
        20:16 wthresh;
        /// Host threshold.
        12:8 hthresh;
        /// Prefetch threshold.
        4:0 pthresh;
    }

    /// Frames dropped for lack of descriptors; reading clears.
    pub(super) RQDPC(u32)[QUEUES, stride = 0x40] @ 0xc030 {
        11:0 frames;
    }
}

// Per transmit queue (8.12)

register! {
    /// Ring address, low.
    pub(super) TDBAL(u32)[QUEUES, stride = 0x40] @ 0xe000 {}
    /// Ring address, high.
    pub(super) TDBAH(u32)[QUEUES, stride = 0x40] @ 0xe004 {}
    /// Ring length in bytes.
    pub(super) TDLEN(u32)[QUEUES, stride = 0x40] @ 0xe008 {}
    /// Next descriptor that the NIC reads.
    pub(super) TDH(u32)[QUEUES, stride = 0x40] @ 0xe010 {}
    /// How transmit DMA uses the bus.
    pub(super) TXCTL(u32)[QUEUES, stride = 0x40] @ 0xe014 {
        /// Write-backs may overtake each other.
        11:11 wb_relaxed;
    }

    /// First descriptor that is not valid.
    pub(super) TDT(u32)[QUEUES, stride = 0x40] @ 0xe018 {}

    /// Transmit queue control.
    pub(super) TXDCTL(u32)[QUEUES, stride = 0x40] @ 0xe028 {
        /// Enable; reads 0 only once the queue is at rest.
        25:25 enable;
        /// Write-back threshold.
        20:16 wthresh;
        /// Host threshold.
        12:8 hthresh;
        /// Prefetch threshold.
        4:0 pthresh;
    }

    /// Head write-back address, low; bit 0 enables it. Unused.
    pub(super) TDWBAL(u32)[QUEUES, stride = 0x40] @ 0xe038 {}
    /// Head write-back address, high.
    pub(super) TDWBAH(u32)[QUEUES, stride = 0x40] @ 0xe03c {}
}

// Per port: statistics, which reading clears (8.19)

register! {
    /// Frames with a bad FCS.
    pub(super) CRCERRS(u32) @ 0x4000 {}
    /// Frames missed because the packet buffer was full.
    pub(super) MPC(u32) @ 0x4010 {}
    /// Good frames received.
    pub(super) GPRC(u32) @ 0x4074 {}
    /// Good frames sent.
    pub(super) GPTC(u32) @ 0x4080 {}
    /// Good bytes received, low; the high half clears both.
    pub(super) GORCL(u32) @ 0x4088 {}
    /// Good bytes received, high.
    pub(super) GORCH(u32) @ 0x408c {}
    /// Good bytes sent, low; the high half clears both.
    pub(super) GOTCL(u32) @ 0x4090 {}
    /// Good bytes sent, high.
    pub(super) GOTCH(u32) @ 0x4094 {}
    /// Frames that found no descriptor.
    pub(super) RNBC(u32) @ 0x40a0 {}
    /// Frames too long for every pool they were for.
    pub(super) ROC(u32) @ 0x40ac {}
}
