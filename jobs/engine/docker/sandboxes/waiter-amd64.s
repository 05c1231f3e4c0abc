# The only process of a network sandbox, for x86-64. It sleeps until it is asked, with one byte on its standard input, whether
# the three files that a sandbox shares with its jobs are still as they were at the start. It answers with one byte if they are,
# and ends if not. It also ends if it is not asked for two days: then there is no service any more. See __init__.py.

        .set    CONTENT, 8192                   # bytes: more than such a file has
        .set    NAMES, 1024                     # bytes of the names of a file's extended attributes
        .set    STATX, 256                      # sizeof(struct statx)
        .set    RECORD, STATX + CONTENT + NAMES + 8
        .set    SNAPSHOT, 3 * RECORD
        .set    SCRATCH, 2 * SNAPSHOT           # after the first and the second snapshot
        .set    SPACE, 14 * 4096
        .set    PATH, 24                        # bytes from one path to the next
        .set    TWO_DAYS, 2 * 24 * 3600

        .globl  _start
_start: sub     $SPACE, %rsp                    # all zero: nothing was there before
        mov     %rsp, %rbx
        mov     %rbx, %r12
        call    snapshot

wait:   movabs  $0x100000000, %rax              # struct pollfd: descriptor 0, POLLIN
        mov     %rax, SCRATCH(%rbx)
        movq    $TWO_DAYS, SCRATCH + 8(%rbx)    # struct timespec; ppoll changes it
        movq    $0, SCRATCH + 16(%rbx)
        lea     SCRATCH(%rbx), %rdi
        mov     $1, %esi
        lea     SCRATCH + 8(%rbx), %rdx
        xor     %r10d, %r10d
        xor     %r8d, %r8d
        mov     $271, %eax                      # ppoll
        syscall
        cmp     $1, %rax
        jne     end

        xor     %edi, %edi
        lea     SCRATCH(%rbx), %rsi
        mov     $1, %edx
        xor     %eax, %eax                      # read
        syscall
        cmp     $1, %rax
        jne     end

        lea     SNAPSHOT(%rbx), %rdi            # clear the second snapshot, and take it
        mov     $SNAPSHOT, %ecx
        xor     %eax, %eax
        rep stosb
        lea     SNAPSHOT(%rbx), %r12
        call    snapshot
        mov     %rbx, %rsi
        lea     SNAPSHOT(%rbx), %rdi
        mov     $SNAPSHOT, %ecx
        repe cmpsb
        jne     end

        mov     $1, %edi
        lea     SCRATCH(%rbx), %rsi
        mov     $1, %edx
        mov     $1, %eax                        # write
        syscall
        cmp     $1, %rax
        je      wait

end:    mov     $1, %edi
        mov     $60, %eax                       # exit
        syscall

snapshot:                                       # into the memory at %r12, which must be zero
        lea     paths(%rip), %r13
        mov     $3, %r14d

record: mov     $-100, %rdi                     # AT_FDCWD
        mov     %r13, %rsi
        xor     %edx, %edx
        mov     $0x7ff, %r10d                   # STATX_BASIC_STATS
        mov     %r12, %r8
        mov     $332, %eax                      # statx
        syscall
        movq    $0, 48(%r12)                    # the number of blocks changes when the kernel writes back
        lea     64(%r12), %rdi                  # so do the times, with every start of a job
        mov     $8, %ecx
        xor     %eax, %eax
        rep stosq

        mov     $-100, %rdi
        mov     %r13, %rsi
        xor     %edx, %edx                      # O_RDONLY
        mov     $257, %eax                      # openat
        syscall
        mov     %eax, %r15d
        mov     %r15d, %edi
        lea     STATX(%r12), %rsi
        mov     $CONTENT, %edx
        xor     %eax, %eax                      # read
        syscall
        cmp     $CONTENT, %rax                  # there may be more
        je      end
        mov     %r15d, %edi
        mov     $3, %eax                        # close
        syscall

        mov     %r13, %rdi
        lea     STATX + CONTENT(%r12), %rsi
        mov     $NAMES, %edx
        mov     $194, %eax                      # listxattr
        syscall
        mov     %rax, STATX + CONTENT + NAMES(%r12)

        add     $RECORD, %r12
        add     $PATH, %r13
        dec     %r14d
        jnz     record
        ret

paths:  .asciz  "/etc/hostname"
        .org    paths + PATH
        .asciz  "/etc/hosts"
        .org    paths + 2 * PATH
        .asciz  "/etc/resolv.conf"
