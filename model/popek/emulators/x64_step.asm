; Runs single x86-64 instructions from given states; driven by x64_step.py, which explains the contract.
;
; As in ia32_step.asm, system-management mode keeps the ROM outside the case.  Here RSM loads all of a case's state
; that the saved-state map has, hidden parts of segment registers included, so that nothing has to be loaded by
; instructions but what the map lacks: CR2, CR8, DR0 to DR3, XCR0, PKRU and MSRs.  The ROM's own code between two
; cases runs in 64-bit mode on the same page tables as the cases.

ROM             equ 0xf0000
STUBS           equ ROM + 0x8000
ARENA_BYTES     equ 0x40000             ; the case's memory: 0 up to here, fresh for every case
USER            equ 0x20000             ; from here on it is user pages
READ_ONLY       equ 0x3c000             ; a page of them that user mode may not write
TABLES          equ 0x10000             ; the part of it that does not consist of markers by default
TABLES_END      equ 0x18000
SMBASE          equ 0x01000000
SMI_AT          equ SMBASE + 0x8000
MAP             equ SMBASE + 0xfe00     ; where an SMI saves the state (512 bytes, the AMD64 layout)
VARIABLES       equ 0x01020000
HOME            equ 0x01020800          ; saved state of the harness itself
CAUGHT          equ 0x01020a00          ; saved state of the case, before or after its instruction
STACK_TOP       equ 0x01024000
IST_TOP         equ 0x01026000          ; the handlers' stack, by the interrupt stack table of the case's TSS
IST_BYTES       equ 0x1000
PML4            equ 0x01030000
PDPT            equ 0x01031000
PD              equ 0x01032000
PT              equ 0x01033000          ; of the first 2 MiB
TEMPLATE        equ 0x01080000          ; the tables are pristine at TEMPLATE + their address
STREAM          equ 0x01200000          ; the disk, as read
MAP_DWORDS      equ 512 / 4
MARKER          equ 0xf1f1f1f1          ; INT1: one byte, traps at every CPL, whatever IOPL and gate DPL
SMI_PORT        equ 0xb2
WATCHDOG_TICKS  equ 1193                ; of 1/1193182 s in emulated time: about 1 ms, 50,000 instructions

phase           equ VARIABLES + 0       ; what the next SMI means
next_case       equ VARIABLES + 4
cases_left      equ VARIABLES + 8
this_case       equ VARIABLES + 12
stage           equ VARIABLES + 16      ; where `home` goes on
watches         equ VARIABLES + 20      ; the case's list of memory to report

PHASE_IDLE      equ 0
PHASE_RELOCATE  equ 1
PHASE_HOME      equ 2                   ; save the harness, go on
PHASE_CATCH     equ 3                   ; save the case, return to the harness
PHASE_GO        equ 4                   ; drop the harness, load the case

; Offsets in the saved state.
M_TABLES        equ 0x00                ; six segment registers, GDTR, LDTR, IDTR, TR
M_EFER          equ 0xd0
M_SMBASE        equ 0x100
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

        org ROM
        bits 16
start:
        cli
        o32 lgdt [cs:gdtr - ROM]
        mov eax, cr0
        or al, 1
        mov cr0, eax
        jmp dword 0x08:flat

        align 8
gdt:    dq 0
        dq 0x00cf9b000000ffff
        dq 0x00cf93000000ffff
        dq 0x00af9b000000ffff
gdt_end:
gdtr:   dw gdt_end - gdt - 1
        dd gdt
        align 4
msr_numbers:                            ; as in x64_step.py
        dd 0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084, 0xc0000102, 0xc0000103
        dd 0x174, 0x175, 0x176, 0x277

        bits 32
flat:
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        mov fs, eax
        mov gs, eax
        mov esp, STACK_TOP
        cld
        mov al, 0xff                    ; no interrupt ever comes through the PICs
        out 0x21, al
        out 0xa1, al
        in al, 0x92
        or al, 2
        and al, 0xfe
        out 0x92, al                    ; A20
        mov al, 0x0c                    ; parallel port: printer selected, strobe off
        mov edx, 0x37a
        out dx, al

        xor eax, eax
        mov edi, VARIABLES
        mov ecx, 0x6000 / 4
        rep stosd
        call smm_set_up
        call read_disk
        call watchdog_set_up

        mov esi, STREAM + 8
        lodsd
        mov [cases_left], eax
        mov eax, MARKER
        mov edi, TEMPLATE + TABLES
        mov ecx, (TABLES_END - TABLES) / 4
        rep stosd
        lodsd
        mov edx, eax
        mov ebx, TEMPLATE               ; the template's patches go to the copy
.default:
        dec edx
        js .defaults_done
        lodsd
        lea edi, [eax + ebx]
        lodsd
        mov ecx, eax
        rep movsb
        add esi, 3
        and esi, ~3
        jmp .default
.defaults_done:
        mov [next_case], esi

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
        mov al, 'B'                     ; alive: what fails from now on is a case
        call put
        mov dword [phase], PHASE_HOME
        out SMI_PORT, al
home:                                   ; every end of a case resumes here, all registers as they were now
        mov dword [phase], PHASE_IDLE
        mov al, 0x30                    ; stop the watchdog
        out 0x43, al
        cmp dword [stage], 0
        je install
        call report

install:
        cmp dword [cases_left], 0
        je finish
        dec dword [cases_left]
        mov ebp, [next_case]
        mov [this_case], ebp
        mov eax, [rbp + case.length]
        add eax, ebp
        mov [next_case], eax
        mov dword [stage], 1

        call restore_arena
        lea rsi, [rbp + case.lists]
        mov edx, [rbp + case.patches]
.patch:
        dec edx
        js .patched
        lodsd
        mov edi, eax
        lodsd
        mov ecx, eax
        rep movsb
        add rsi, 3
        and rsi, ~3
        jmp .patch
.patched:
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
        mov al, 0x30                    ; counter 0, mode 0: one shot
        out 0x43, al
        mov al, WATCHDOG_TICKS & 0xff
        out 0x40, al
        mov al, WATCHDOG_TICKS >> 8
        out 0x40, al
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
        call put_qword
        mov rax, cr8
        call put_qword
        mov rax, dr0
        call put_qword
        mov rax, dr1
        call put_qword
        mov rax, dr2
        call put_qword
        mov rax, dr3
        call put_qword
        xor ecx, ecx
        xgetbv
        shl rdx, 32
        or rax, rdx
        call put_qword
        mov rax, r15
        call put_qword
        xor ebx, ebx
.msr:
        mov ecx, [msr_numbers + rbx * 4]
        rdmsr
        shl rdx, 32
        or rax, rdx
        call put_qword
        inc ebx
        cmp ebx, MSRS
        jb .msr
        mov esi, [watches]
        mov ebx, [rbp + case.watches]
.watch:
        dec ebx
        js .watched
        lodsd
        mov r14d, eax
        lodsd
        mov ecx, eax
        mov r13, rsi
        mov rsi, r14
        call put_block
        mov rsi, r13
        jmp .watch
.watched:
        ret

put_qword:
        push rsi
        push rcx
        push rax
        mov rsi, rsp
        mov ecx, 8
        call put_block
        pop rax
        pop rcx
        pop rsi
        ret

put_block:
        jrcxz .done
.next:
        lodsb
        call put
        loop .next
.done:
        ret

put:                                    ; AL to the parallel port; clobbers AL and EDX
        mov edx, 0x378
        out dx, al
        mov edx, 0x37a
        mov al, 0x0d
        out dx, al
        mov al, 0x0c
        out dx, al
        ret

finish:
        mov esi, shutdown
        mov edx, 0x8900
        mov ecx, 8
        rep outsb
        cli
        hlt
shutdown: db 'Shutdown'

; Put the arena back to its default contents.  REP MOVSD and STOSD are slow on Bochs.
restore_arena:
        mov eax, TABLES
.tables:
        movaps xmm0, [TEMPLATE + rax]
        movaps xmm1, [TEMPLATE + rax + 16]
        movaps xmm2, [TEMPLATE + rax + 32]
        movaps xmm3, [TEMPLATE + rax + 48]
        movaps [rax], xmm0
        movaps [rax + 16], xmm1
        movaps [rax + 32], xmm2
        movaps [rax + 48], xmm3
        add eax, 64
        cmp eax, TABLES_END
        jb .tables
        movaps xmm0, [markers]
        xor eax, eax
        mov ecx, TABLES
        call .fill
        mov eax, TABLES_END
        mov ecx, ARENA_BYTES
.fill:
%assign offset 0
%rep 16
        movaps [rax + offset], xmm0
%assign offset offset + 16
%endrep
        add eax, 256
        cmp eax, ecx
        jb .fill
        ret
        align 16
markers: times 16 db 0xf1

        bits 32
read_disk:
        mov edi, STREAM
        xor ebx, ebx                    ; sector number
        mov ecx, 1
        call read_sectors
        mov ecx, [STREAM + 4]           ; sectors in all
        dec ecx
        jz .done
        call read_sectors
.done:
        ret

read_sectors:                           ; ECX sectors from number EBX to EDI; EBX, EDI advance
.command:
        push ecx
        cmp ecx, 128
        jbe .few
        mov ecx, 128
.few:
        push ecx
        call wait_ready
        mov edx, 0x1f2
        mov al, cl
        out dx, al
        mov eax, ebx
        inc edx
        out dx, al
        inc edx
        shr eax, 8
        out dx, al
        inc edx
        shr eax, 8
        out dx, al
        inc edx
        shr eax, 8
        and al, 0x0f
        or al, 0xe0
        out dx, al
        inc edx
        mov al, 0x20
        out dx, al
        add ebx, ecx
.sector:
        push ecx
        call wait_ready
.data:
        in al, dx
        test al, 8
        jz .data
        mov edx, 0x1f0
        mov ecx, 256
        rep insw
        mov edx, 0x1f7
        pop ecx
        loop .sector
        pop eax
        pop ecx
        sub ecx, eax
        jnz .command
        ret

wait_ready:
        mov edx, 0x1f7
.busy:
        in al, dx
        test al, 0x80
        jnz .busy
        ret

smm_set_up:
        mov esi, smi_entry
        mov edi, 0x38000                ; where the first SMI goes
        mov ecx, smi_end - smi_entry
        rep movsb
        mov esi, smi_entry
        mov edi, SMI_AT
        mov ecx, smi_end - smi_entry
        rep movsb
        ; Let port B2H raise an SMI: PIIX4 power management, DEVACTB.APMC_EN.
        mov edx, 0xcf8
        mov eax, 0x80000b58
        out dx, eax
        mov edx, 0xcfc
        in eax, dx
        or eax, 1 << 25
        out dx, eax
        mov dword [phase], PHASE_RELOCATE
        out SMI_PORT, al
        ret

; The timer's interrupt is delivered as an SMI, so it ends loops and HLT whatever IF and the IDT are.
watchdog_set_up:
        mov ebx, 0xfec00000
        mov ecx, 2                      ; pins 0 and 2
.pin:
        lea eax, [ecx * 2 + 0x11]
        mov [ebx], eax
        mov dword [ebx + 0x10], 0       ; to APIC 0
        dec eax
        mov [ebx], eax
        mov dword [ebx + 0x10], 2 << 8  ; delivery mode SMI, edge
        sub ecx, 2
        jns .pin
        ret

; ---- the SMI handler: copied to RAM, position-independent ---------------------------------------------------
        bits 16
smi_entry:
        xor ax, ax
        mov ds, ax
        mov es, ax
        cld
        mov eax, [dword phase]
        cmp al, PHASE_CATCH
        je .catch
        cmp al, PHASE_GO
        je .go
        cmp al, PHASE_HOME
        je .home
        cmp al, PHASE_RELOCATE
        jne .out
        mov dword [dword 0x3fe00 + M_SMBASE], SMBASE
.out:
        rsm
.home:
        mov esi, MAP
        mov edi, HOME
        mov ecx, MAP_DWORDS
        a32 rep movsd
        rsm
.catch:
        mov esi, MAP
        mov edi, CAUGHT
        mov ecx, MAP_DWORDS
        a32 rep movsd
        mov esi, HOME
        mov edi, MAP
        mov ecx, MAP_DWORDS
        a32 rep movsd
        mov dword [dword phase], PHASE_IDLE
        rsm
.go:
        mov esi, CAUGHT
        mov edi, MAP
        mov ecx, MAP_DWORDS
        a32 rep movsd
        mov dword [dword phase], PHASE_CATCH
        rsm
smi_end:

; ---- one stub a vector, at a fixed place; the vector is told from EIP ---------------------------------------
        times 0x8000 - ($ - $$) db 0xf1
        bits 64
%rep 256
        out SMI_PORT, al
        jmp short $
%endrep

        times 0xfff0 - ($ - $$) db 0xf1
        bits 16
        jmp 0xf000:(start - ROM)
        times 0x10000 - ($ - $$) db 0
