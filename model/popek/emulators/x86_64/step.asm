; Runs single x86-64 instructions from given states; driven by step.py, which explains the contract.
;
; As in ia32/step.asm, system-management mode keeps the ROM outside the case.  Here RSM loads all of a case's state
; that the saved-state map has, hidden parts of segment registers included, so that nothing has to be loaded by
; instructions but what the map lacks: CR2, CR8, DR0 to DR3, XCR0, PKRU and MSRs.  The ROM's own code between two
; cases runs in 64-bit mode on the same page tables as the cases.

%define STUB_BITS 64
%include "step_places.inc"

USER            equ 0x20000             ; from here on it is user pages
READ_ONLY       equ 0x3c000             ; a page of them that user mode may not write
IST_TOP         equ 0x01026000          ; the handlers' stack, by the interrupt stack table of the case's TSS
IST_BYTES       equ 0x1000
PML4            equ 0x01030000
PDPT            equ 0x01031000
PD              equ 0x01032000
PT              equ 0x01033000          ; of the first 2 MiB

watches         equ VARIABLES + 20      ; the case's list of memory to report

; Offsets in the saved state.
M_TABLES        equ 0x00                ; six segment registers, GDTR, LDTR, IDTR, TR
M_EFER          equ 0xd0
M_REGISTERS     equ 0x148               ; CR4 CR3 CR0 DR7 DR6 RFLAGS RIP R15 ... RAX
M_RSP           equ 0x1d8
TABLES_BYTES    equ 160
REGISTERS_BYTES equ 184
MSRS            equ 10

; A case on disk: this header, then patches and memory to report.
struc case
.length         resd 1
.patches        resd 1
.watches        resd 1
.padding        resd 1
.tables         resb TABLES_BYTES
.efer           resq 1
.registers      resb REGISTERS_BYTES
.cr2            resq 1
.cr8            resq 1
.dr             resq 4
.xcr0           resq 1
.pkru           resq 1
.msrs           resq MSRS
.lists:
endstruc

%include "step_start.inc"
        call read_cases
        jmp paging

        align 4
msr_numbers:                            ; as in step.py
        dd 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103
        dd 0x174, 0x175, 0x176, 0x277

paging:
        ; Page tables: 32 MiB, of which the arena from USER on is for users.
        mov edi, PML4
        mov ecx, 0x4000 / 4
        xor eax, eax
        rep stosd
        mov dword [PML4], PDPT + 7
        mov dword [PDPT], PD + 7
        mov eax, 0x83                   ; 2 MiB, present, writable
        mov edi, PD
        mov ecx, 16
.large:
        mov [edi], eax
        add eax, 0x200000
        add edi, 8
        loop .large
        mov dword [PD], PT + 7
        mov eax, 3
        mov edi, PT
        mov ecx, 512
.small:
        mov [edi], eax
        cmp eax, USER
        jb .supervisor
        cmp eax, ARENA_BYTES
        jae .supervisor
        or byte [edi], 4
.supervisor:
        add eax, 0x1000
        add edi, 8
        loop .small
        and byte [PT + READ_ONLY / 0x1000 * 8], ~2

        mov eax, cr4
        or eax, 1 << 5 | 1 << 9 | 1 << 18 | 1 << 22     ; PAE, OSFXSR, OSXSAVE, PKE
        mov cr4, eax
        mov eax, PML4
        mov cr3, eax
        mov ecx, 0xc0000080
        rdmsr
        or eax, 1 << 8 | 1
        wrmsr
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        jmp 0x18:long_mode

        bits 64
long_mode:
        come_home
        cmp dword [stage], 0
        je install
        call report

install:
        take_case
        mov dword [stage], 1

        call restore_by_sse
        lea esi, [ebp + case.lists]
        mov ecx, [ebp + case.patches]
        xor ebx, ebx
        apply_patches
        mov [watches], esi

        mov rax, [rbp + case.cr2]
        mov cr2, rax
        mov rax, [rbp + case.cr8]
        mov cr8, rax
        mov rax, [rbp + case.dr]
        mov dr0, rax
        mov rax, [rbp + case.dr + 8]
        mov dr1, rax
        mov rax, [rbp + case.dr + 16]
        mov dr2, rax
        mov rax, [rbp + case.dr + 24]
        mov dr3, rax
        xor ecx, ecx
        mov eax, [rbp + case.xcr0]
        mov edx, [rbp + case.xcr0 + 4]
        xsetbv
        xor ebx, ebx
.msr:
        mov ecx, [msr_numbers + rbx * 4]
        mov eax, [rbp + rbx * 8 + case.msrs]
        mov edx, [rbp + rbx * 8 + case.msrs + 4]
        wrmsr
        inc ebx
        cmp ebx, MSRS
        jb .msr

        mov esi, HOME                   ; the case's state, and what the map has besides
        mov edi, CAUGHT
        mov ecx, MAP_DWORDS
        rep movsd
        lea rsi, [rbp + case.tables]
        mov edi, CAUGHT + M_TABLES
        mov ecx, TABLES_BYTES
        rep movsb
        mov rax, [rbp + case.efer]
        mov [CAUGHT + M_EFER], rax
        lea rsi, [rbp + case.registers]
        mov edi, CAUGHT + M_REGISTERS
        mov ecx, REGISTERS_BYTES
        rep movsb

        mov dword [phase], PHASE_GO
        start_watchdog
        xor ecx, ecx
        xor edx, edx
        mov eax, [rbp + case.pkru]
        wrpkru
        out SMI_PORT, al
        jmp $                           ; not reached: the SMI resumes the case

; ---- report -------------------------------------------------------------------------------------------------
report:
        xor ecx, ecx
        rdpkru
        mov r15d, eax
        xor eax, eax
        xor edx, edx
        wrpkru
        mov ebp, [this_case]
        mov al, 'R'
        call put
        mov esi, CAUGHT + M_TABLES
        mov ecx, TABLES_BYTES
        call put_block
        mov esi, CAUGHT + M_EFER
        mov ecx, 8
        call put_block
        mov esi, CAUGHT + M_REGISTERS
        mov ecx, REGISTERS_BYTES
        call put_block
        mov rsi, [CAUGHT + M_RSP]       ; the frame that one of the handlers was entered with
        lea rax, [rsi - (IST_TOP - IST_BYTES)]
        cmp rax, IST_BYTES
        jb .frame
        mov esi, IST_TOP
.frame:
        mov ecx, 48
        call put_block
        mov rax, cr2
        call put_whole
        mov rax, cr8
        call put_whole
        mov rax, dr0
        call put_whole
        mov rax, dr1
        call put_whole
        mov rax, dr2
        call put_whole
        mov rax, dr3
        call put_whole
        xor ecx, ecx
        xgetbv
        shl rdx, 32
        or rax, rdx
        call put_whole
        mov rax, r15
        call put_whole
        xor ebx, ebx
.msr:
        mov ecx, [msr_numbers + rbx * 4]
        rdmsr
        shl rdx, 32
        or rax, rdx
        call put_whole
        inc ebx
        cmp ebx, MSRS
        jb .msr
        mov esi, [watches]
        mov ebx, [rbp + case.watches]
        jmp put_watched

%include "step_report.inc"
%include "step_rom.inc"
