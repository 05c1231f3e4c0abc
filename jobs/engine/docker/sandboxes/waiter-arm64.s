// The same program as waiter-amd64.s, for AArch64.

        .set    CONTENT, 8192
        .set    NAMES, 1024
        .set    STATX, 256
        .set    RECORD, STATX + CONTENT + NAMES + 8
        .set    SNAPSHOT, 3 * RECORD
        .set    SCRATCH, 2 * SNAPSHOT
        .set    SPACE, 14 * 4096
        .set    PATH, 24
        .set    TWO_DAYS, 2 * 24 * 3600

        .globl  _start
_start: sub     sp, sp, #SPACE                  // all zero: nothing was there before
        mov     x19, sp                         // the first snapshot
        mov     x9, #SNAPSHOT
        add     x20, x19, x9                    // the second one
        add     x21, x20, x9                    // scratch
        mov     x22, x19
        bl      snapshot

wait:   mov     x9, #0x100000000                // struct pollfd: descriptor 0, POLLIN
        str     x9, [x21]
        ldr     x9, =TWO_DAYS                   // struct timespec; ppoll changes it
        stp     x9, xzr, [x21, #8]
        mov     x0, x21
        mov     x1, #1
        add     x2, x21, #8
        mov     x3, #0
        mov     x4, #0
        mov     x8, #73                         // ppoll
        svc     #0
        cmp     x0, #1
        b.ne    end

        mov     x0, #0
        mov     x1, x21
        mov     x2, #1
        mov     x8, #63                         // read
        svc     #0
        cmp     x0, #1
        b.ne    end

        mov     x9, x20                         // clear the second snapshot, and take it
clear:  str     xzr, [x9], #8
        cmp     x9, x21
        b.lo    clear
        mov     x22, x20
        bl      snapshot
        mov     x9, x19
        mov     x10, x20
compare:
        ldr     x11, [x9], #8
        ldr     x12, [x10], #8
        cmp     x11, x12
        b.ne    end
        cmp     x10, x21
        b.lo    compare

        mov     x0, #1
        mov     x1, x21
        mov     x2, #1
        mov     x8, #64                         // write
        svc     #0
        cmp     x0, #1
        b.eq    wait

end:    mov     x0, #1
        mov     x8, #93                         // exit
        svc     #0

snapshot:                                       // into the memory at x22, which must be zero
        adr     x23, paths
        mov     x24, #3

record: mov     x0, #-100                       // AT_FDCWD
        mov     x1, x23
        mov     x2, #0
        mov     x3, #0x7ff                      // STATX_BASIC_STATS
        mov     x4, x22
        mov     x8, #291                        // statx
        svc     #0
        str     xzr, [x22, #48]                 // the number of blocks changes when the kernel writes back
        stp     xzr, xzr, [x22, #64]            // so do the times, with every start of a job
        stp     xzr, xzr, [x22, #80]
        stp     xzr, xzr, [x22, #96]
        stp     xzr, xzr, [x22, #112]

        mov     x0, #-100
        mov     x1, x23
        mov     x2, #0                          // O_RDONLY
        mov     x8, #56                         // openat
        svc     #0
        mov     x25, x0
        add     x1, x22, #STATX
        mov     x2, #CONTENT
        mov     x8, #63                         // read
        svc     #0
        cmp     x0, #CONTENT                    // there may be more
        b.eq    end
        mov     x0, x25
        mov     x8, #57                         // close
        svc     #0

        mov     x0, x23
        mov     x9, #STATX + CONTENT
        add     x1, x22, x9
        mov     x2, #NAMES
        mov     x8, #11                         // listxattr
        svc     #0
        mov     x9, #STATX + CONTENT + NAMES
        str     x0, [x22, x9]

        mov     x9, #RECORD
        add     x22, x22, x9
        add     x23, x23, #PATH
        subs    x24, x24, #1
        b.ne    record
        ret

paths:  .asciz  "/etc/hostname"
        .org    paths + PATH
        .asciz  "/etc/hosts"
        .org    paths + 2 * PATH
        .asciz  "/etc/resolv.conf"
