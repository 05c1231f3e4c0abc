/* The header of an entry of a tar archive. */

#pragma once

#define BLOCK 512

enum entry_type {
    FILE_ENTRY = '0',
    LINK_ENTRY = '2',
    CHARACTER_ENTRY = '3',
    BLOCK_ENTRY = '4',
    DIRECTORY_ENTRY = '5',
    PIPE_ENTRY = '6',
    GNU_LONG_TARGET = 'K',
    GNU_LONG_NAME = 'L',
    PAX_ENTRY = 'x',
    PAX_GLOBAL = 'g',
};

struct header {
    char name[100];
    char mode[8];
    char uid[8];
    char gid[8];
    char size[12];
    char mtime[12];
    char checksum[8];
    char type;
    char target[100];
    char magic[6];
    char version[2];
    char user[32];
    char group[32];
    char major[8];
    char minor[8];
    char prefix[155];
    char unused[12];
};
_Static_assert(sizeof(struct header) == BLOCK, "a header is one block");

/* The sum of a header's bytes, its checksum counted as spaces. */
static inline unsigned sum_of(const struct header *header)
{
    const unsigned char *bytes = (const unsigned char *)header;
    unsigned sum = 0;
    for (int i = 0; i < BLOCK; i++)
        sum += bytes + i >= (const unsigned char *)header->checksum && bytes + i < (const unsigned char *)header->checksum + 8
                   ? ' '
                   : bytes[i];
    return sum;
}
