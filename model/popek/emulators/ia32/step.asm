; Runs single IA-32 instructions from given states; driven by step.py, which explains the contract.
;
; The ROM stays outside the case by means of system-management mode: an SMI saves the whole processor state,
; hidden segment parts included, without stack, IDT or GDT, and RSM loads a whole state.  Writing port B2H raises
; an SMI at once.  `smi_entry` only swaps saved states, so that everything else is plain flat 32-bit code.

%define STUB_BITS 32
%include "step_places.inc"

FRAME           equ 0x01020c00          ; top of the stack at the end: the frame that a gate pushed
IDT             equ 0x01021000
TSS_DF          equ 0x01022000
TSS_TS          equ 0x01022100
TASK_STACK_TOP  equ 0x01026000
FRAME_DWORDS    equ 10                  ; error code, EIP, CS, EFLAGS, ESP, SS, ES, DS, FS, GS
LAUNCH_MARKER   equ 0xb2e6              ; OUT 0B2H, AL

has_sysenter    equ VARIABLES + 20
has_sse         equ VARIABLES + 21
lists           equ VARIABLES + 24      ; the case's lists that are not yet used
launched        equ VARIABLES + 28      ; 1: the case's instruction was started
selectors       equ VARIABLES + 32      ; DS ES FS GS as they were when it started
has_xsave       equ VARIABLES + 48
has_pku         equ VARIABLES + 49

GDTR_CASE       equ VARIABLES + 0x100
JUMP            equ VARIABLES + 0x110
IDTR_HERE       equ VARIABLES + 0x120

STAGE_NEXT      equ 0
STAGE_READY     equ 1
STAGE_DONE      equ 2

; Offsets in the saved state.
M_ES            equ 0x00
M_CS            equ 0x10
M_SS            equ 0x20
M_DS            equ 0x30
M_FS            equ 0x40
M_GS            equ 0x50
M_GDTR          equ 0x60
M_IDTR          equ 0x80
M_TR            equ 0x90
M_CR4           equ 0x148
M_CR3           equ 0x150
M_CR0           equ 0x158
M_DR7           equ 0x160
M_DR6           equ 0x168
M_EFLAGS        equ 0x170
M_EIP           equ 0x178
M_EDI           equ 0x1c0
M_ESI           equ 0x1c8
M_EBP           equ 0x1d0
M_ESP           equ 0x1d8
M_EBX           equ 0x1e0
M_EDX           equ 0x1e8
M_ECX           equ 0x1f0
M_EAX           equ 0x1f8

; A case on disk: this header, then the lists (MSRs to write, patches, late patches, memory to report, MSRs to read).
struc case
.length         resd 1
.cpl            resd 1
.code_at        resd 1                  ; linear
.code_length    resd 1
.code           resb 32
.reserved       resd 1                  ; selector of the first reserved descriptor
.eax            resd 1
.ecx            resd 1
.edx            resd 1
.ebx            resd 1
.esp            resd 1
.ebp            resd 1
.esi            resd 1
.edi            resd 1
.eip            resd 1
.eflags         resd 1
.cs             resd 1
.ds             resd 1
.es             resd 1
.fs             resd 1
.gs             resd 1
.ss             resd 1
.ldtr           resd 1
.tr             resd 1
.gdtr_base      resd 1
.gdtr_limit     resd 1
.idtr_base      resd 1
.idtr_limit     resd 1
.cr0            resd 1
.cr2            resd 1
.cr3            resd 1
.cr4            resd 1
.dr0            resd 1
.dr1            resd 1
.dr2            resd 1
.dr3            resd 1
.dr6            resd 1
.dr7            resd 1
.xcr0           resd 1
.pkru           resd 1
.msrs           resd 1
.patches        resd 1
.late           resd 1
.watches        resd 1
.msr_reads      resd 1
.direct         resd 1                  ; 1: real-address or virtual-8086 mode, segments as follow, EIP is .start
.start          resd 1
.segments       resb 6 * 12             ; ES CS SS DS FS GS: selector, attributes, limit, base
.lists:
endstruc

%include "step_start.inc"

        ; Landing places outside the arena trap as well.
        mov eax, MARKER
        mov edi, ARENA_BYTES
        mov ecx, (0xa0000 - ARENA_BYTES) / 4
        rep stosd
        mov edi, 0x100000
        mov ecx, 0xf00000 / 4
        rep stosd

        mov eax, 1
        cpuid
        test edx, 1 << 11
        setnz byte [has_sysenter]
        test edx, 1 << 25
        setnz byte [has_sse]
        jz .no_sse
        mov eax, cr4
        or eax, 1 << 9
        mov cr4, eax
.no_sse:
        mov eax, 1
        cpuid
        test ecx, 1 << 26
        setnz byte [has_xsave]
        jz .no_xsave
        mov eax, cr4
        or eax, 1 << 18
        mov cr4, eax
.no_xsave:
        xor eax, eax
        cpuid
        cmp eax, 7
        jb .no_pku
        mov eax, 7
        xor ecx, ecx
        cpuid
        test ecx, 1 << 3
        setnz byte [has_pku]
        jz .no_pku
        mov eax, cr4
        or eax, 1 << 22
        mov cr4, eax
.no_pku:

        call read_cases
        mov edi, IDT                    ; gates of the set-up; their selector depends on the case
        mov eax, STUBS
        mov ecx, 256
.gate:
        mov [edi], ax
        mov dword [edi + 4], (STUBS & 0xffff0000) | 0x8e00
        add edi, 8
        add eax, 4
        loop .gate
        mov word [IDTR_HERE], 0x7ff
        mov dword [IDTR_HERE + 2], IDT
        lidt [IDTR_HERE]

        come_home
        mov eax, [stage]
        cmp eax, STAGE_READY
        je launch
        cmp eax, STAGE_DONE
        jne install
        call report

; ---- put everything in place that only ring 0 can load, then IRET to the case's CPL -------------------------
install:
        take_case
        mov dword [launched], 0

        call restore_arena

        mov eax, [ebp + case.reserved]
        mov edi, IDT
        mov ecx, 32
.gate:
        mov [edi + 2], ax
        add edi, 8
        loop .gate
        mov edi, TSS_DF
        mov edx, STUBS + 8 * 4
        call fill_tss
        mov edi, TSS_TS
        mov edx, STUBS + 10 * 4
        call fill_tss

        ; Skip the MSRs for now: their writes may fault, which needs the case's GDT.
        mov ecx, [ebp + case.msrs]
        lea ecx, [ecx + ecx * 2]
        lea esi, [ebp + case.lists + ecx * 4]
        mov ecx, [ebp + case.patches]
        xor ebx, ebx
        call patch
        mov [lists], esi
        mov edi, [ebp + case.code_at]
        mov word [edi], LAUNCH_MARKER   ; see `launch`

        mov eax, [ebp + case.gdtr_limit]
        mov [GDTR_CASE], ax
        mov eax, [ebp + case.gdtr_base]
        mov [GDTR_CASE + 2], eax
        mov dword [stage], STAGE_READY
        lgdt [GDTR_CASE]
        mov dword [phase], PHASE_CATCH  ; from here on a fault is caught and reported

        cmp byte [has_sysenter], 0
        je .no_sysenter
        xor eax, eax
        xor edx, edx
        mov ecx, 0x174
        wrmsr
        inc ecx
        wrmsr
        inc ecx
        wrmsr
.no_sysenter:
        xor ecx, ecx
        xor edx, edx
        cmp byte [has_xsave], 0
        je .no_xsave
        mov eax, [ebp + case.xcr0]
        xsetbv
.no_xsave:
        cmp byte [has_pku], 0
        je .no_pku
        mov eax, [ebp + case.pkru]
        db 0x0f, 0x01, 0xef             ; WRPKRU
.no_pku:
        lea esi, [ebp + case.lists]
        mov ebx, [ebp + case.msrs]
.msr:
        dec ebx
        js .msrs_done
        lodsd
        mov ecx, eax
        lodsd
        mov edi, eax
        lodsd
        mov edx, eax
        mov eax, edi
        wrmsr
        jmp .msr
.msrs_done:
        fninit
        mov eax, [ebp + case.cr2]
        mov cr2, eax
        mov eax, [ebp + case.dr0]
        mov dr0, eax
        mov eax, [ebp + case.dr1]
        mov dr1, eax
        mov eax, [ebp + case.dr2]
        mov dr2, eax
        mov eax, [ebp + case.dr3]
        mov dr3, eax
        lldt [ebp + case.ldtr]
        mov eax, [ebp + case.tr]
        test eax, 0xfffc
        jz .no_tr
        ltr ax
.no_tr:
        mov eax, [ebp + case.cs]
        mov [JUMP + 4], ax
        mov eax, [ebp + case.eip]
        mov [JUMP], eax
        mov ebx, [ebp + case.cpl]
        mov edx, [ebp + case.ss]
        ; The frame, for CPL > 0; harness code runs on with its own cached SS.
        push edx
        push 0
        push 0x3002                     ; IOPL 3, so that the launch marker may write its port
        push dword [ebp + case.cs]
        push dword [ebp + case.eip]
        mov eax, [ebp + case.es]
        mov es, eax
        mov eax, [ebp + case.fs]
        mov fs, eax
        mov eax, [ebp + case.gs]
        mov gs, eax
        mov eax, [ebp + case.ds]
        mov ds, eax
        test ebx, ebx
        jz .ring0
        iretd
.ring0:
        mov ss, edx
        jmp far [cs:JUMP]

; ---- the launch marker ran in the case's segments at its CPL: now the rest of the state ---------------------
launch:
        mov ebp, [this_case]
        mov dword [stage], STAGE_DONE
        ; A fault while installing ends in a stub.
        mov eax, [CAUGHT + M_EIP]
        mov ebx, [ebp + case.eip]
        add ebx, 2
        cmp eax, ebx
        jne .failed
        mov eax, [CAUGHT + M_CS]
        xor eax, [ebp + case.cs]
        test ax, ax
        jz .started
.failed:
        call report
        jmp install
.started:
        mov dword [launched], 1
%macro check_null 3                     ; IRET to an outer ring drops the RPL of a null selector, MOV keeps it
        mov ax, [CAUGHT + %1]
        test ax, 0xfffc
        jnz %%kept
        cmp dword [ebp + case.%2], 4
        jae %%kept
        mov ax, [ebp + case.%2]
        mov [CAUGHT + %1], ax
%%kept:
        movzx eax, ax
        mov [selectors + %3], eax
%endmacro
        check_null M_DS, ds, 0
        check_null M_ES, es, 4
        check_null M_FS, fs, 8
        check_null M_GS, gs, 12
        mov edi, [ebp + case.code_at]
        mov word [edi], MARKER & 0xffff
        lea esi, [ebp + case.code]
        mov ecx, [ebp + case.code_length]
        rep movsb
        mov esi, [lists]
        mov ecx, [ebp + case.late]
        xor ebx, ebx
        call patch
        mov [lists], esi

%macro load 2
        mov eax, [ebp + case.%1]
        mov [CAUGHT + %2], eax
%endmacro
        load eax, M_EAX
        load ecx, M_ECX
        load edx, M_EDX
        load ebx, M_EBX
        load esp, M_ESP
        load ebp, M_EBP
        load esi, M_ESI
        load edi, M_EDI
        load eip, M_EIP
        load eflags, M_EFLAGS
        load cr0, M_CR0
        load cr3, M_CR3
        load cr4, M_CR4
        load dr6, M_DR6
        load dr7, M_DR7
        load idtr_base, M_IDTR + 8
        load idtr_limit, M_IDTR + 4
        cmp dword [ebp + case.direct], 0
        je .loaded
        load start, M_EIP
        lea esi, [ebp + case.segments]
        mov edi, CAUGHT + M_ES
        mov edx, 6
.segment:
        mov ecx, 3
        rep movsd
        add edi, 4
        dec edx
        jnz .segment
.loaded:
        mov dword [phase], PHASE_GO
        start_watchdog
        out SMI_PORT, al
        jmp $                           ; not reached: the SMI resumes the case

; ---- report -------------------------------------------------------------------------------------------------
report:
        mov ebp, [this_case]
        ; What lies at the top of the stack, whatever SS is now.
        mov ebx, [CAUGHT + M_ESP]
        test byte [CAUGHT + M_SS + 3], 0x04
        jnz .wide
        test byte [CAUGHT + M_SS + 3], 0x40
        jnz .wide
        movzx ebx, bx
.wide:
        add ebx, [CAUGHT + M_SS + 8]
        mov edi, FRAME
        mov ecx, FRAME_DWORDS
.frame:
        mov eax, [ebx]
        stosd
        add ebx, 4
        loop .frame

        mov al, 'R'
        call put
        mov eax, [launched]
        call put
        mov esi, CAUGHT
        mov ebx, 10                     ; segment and table registers, without bits 63:32 of the base
.segment:
        mov ecx, 12
        call put_block
        add esi, 4
        dec ebx
        jnz .segment
        mov esi, CAUGHT + M_CR4
        mov ebx, 7
        call put_low_halves
        mov esi, CAUGHT + M_EDI
        mov ebx, 8
        call put_low_halves
        mov esi, FRAME
        mov ecx, FRAME_DWORDS * 4
        call put_block
        mov esi, selectors
        mov ecx, 16
        call put_block
        mov eax, cr2
        call put_whole
        mov eax, dr0
        call put_whole
        mov eax, dr1
        call put_whole
        mov eax, dr2
        call put_whole
        mov eax, dr3
        call put_whole
        mov eax, 1
        xor ecx, ecx
        cmp byte [has_xsave], 0
        je .no_xsave
        xgetbv
.no_xsave:
        call put_whole
        xor eax, eax
        xor ecx, ecx
        cmp byte [has_pku], 0
        je .no_pku
        db 0x0f, 0x01, 0xee             ; RDPKRU
.no_pku:
        call put_whole

        cmp dword [launched], 0
        je .done
        mov esi, [lists]
        movzx eax, word [CAUGHT + M_TR]
        sub eax, [ebp + case.reserved]
        movzx ecx, word [TSS_DF]
        cmp eax, 0x10
        je .task
        movzx ecx, word [TSS_TS]
        cmp eax, 0x18
        jne .watches
.task:                                  ; the state is in the TSS that the back link selects
        push esi
        mov eax, ecx
        call put_whole
        and ecx, ~7
        add ecx, [CAUGHT + M_GDTR + 8]
        mov eax, [ecx + 2]
        and eax, 0xffffff
        movzx esi, byte [ecx + 7]
        shl esi, 24
        or esi, eax
        mov eax, esi
        call put_whole
        mov ecx, 0x68
        call put_block
        pop esi
.watches:
        mov ebx, [ebp + case.watches]
        call put_watched
        mov ebx, [ebp + case.msr_reads]
.msr:
        dec ebx
        js .done
        lodsd
        mov ecx, eax
        rdmsr
        push edx
        call put_whole
        pop eax
        call put_whole
        jmp .msr
.done:
        ret

put_low_halves:                         ; of EBX quadwords
        mov ecx, 4
        call put_block
        add esi, 4
        dec ebx
        jnz put_low_halves
        ret

; ---- helpers ------------------------------------------------------------------------------------------------
restore_arena:
        cmp byte [has_sse], 0
        jne restore_by_sse
        mov eax, MARKER
        xor edi, edi
        mov ecx, TABLES / 4
        rep stosd
        mov esi, TEMPLATE + TABLES
        mov ecx, (TABLES_END - TABLES) / 4
        rep movsd
        mov ecx, (ARENA_BYTES - TABLES_END) / 4
        rep stosd
        ret

; A task for #DF and #TS, which must work when the case's own stacks do not.  EAX: reserved selector, EDX: EIP.
fill_tss:
        push eax
        mov ebx, eax
        push edi
        xor eax, eax
        mov ecx, 0x68 / 4
        rep stosd
        pop edi
        mov [edi + 0x20], edx
        mov dword [edi + 0x24], 2
        mov dword [edi + 0x38], TASK_STACK_TOP
        mov [edi + 0x4c], ebx
        add ebx, 8
        mov [edi + 0x48], ebx
        mov [edi + 0x50], ebx
        mov [edi + 0x54], ebx
        mov [edi + 0x58], ebx
        mov [edi + 0x5c], ebx
        mov dword [edi + 0x64], 0x680000
        pop eax
        ret

%include "step_report.inc"
%include "step_rom.inc"
