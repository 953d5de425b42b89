package engine

import (
	"strconv"
	"strings"
)

// slotCount is fixed by Redis Cluster.
const slotCount = 16384

// slot is where Redis Cluster keeps a key: CRC-16 (XMODEM) of what stands in
// the first pair of braces, if it is not empty, else of all of it.
func slot(key string) int {
	if _, rest, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(rest, "}"); ok && tag != "" {
			key = tag
		}
	}
	var crc uint16
	for i := range len(key) {
		crc = crc<<8 ^ crcTable[byte(crc>>8)^key[i]]
	}
	return int(crc % slotCount)
}

var crcTable = func() (table [256]uint16) {
	for i := range table {
		crc := uint16(i) << 8
		for range 8 {
			if crc&0x8000 != 0 {
				crc = crc<<1 ^ 0x1021
			} else {
				crc <<= 1
			}
		}
		table[i] = crc
	}
	return table
}()

// partitionTags returns a hash tag for each of n partitions. Their slots lie
// at even distances, so that masters with equal shares of the slots have equal
// shares of the partitions; plain numbers as tags leave masters without any.
// The answer is part of the names of stored keys: it must never change.
func partitionTags(n int) []string {
	tags := make([]string, n)
	wanted := make(map[int]int, n) // slot → partition
	for i := range n {
		wanted[(2*i+1)*slotCount/(2*n)] = i
	}
	for i := int64(0); len(wanted) > 0; i++ {
		tag := strconv.FormatInt(i, 36)
		s := slot(tag)
		if p, ok := wanted[s]; ok {
			tags[p] = tag
			delete(wanted, s)
		}
	}
	return tags
}
