; Bare-metal VMRUN harness: reads VMCBs from the first ATA disk, runs each, reports on LPT1.
;
; The ROM is a small interpreter and knows as little as possible: what a VMCB holds, what the guest's memory
; looks like and what the exit code means is decided in harness.py, which writes the operations below to the
; disk. Host and guest share no memory but the arena, which holds the VMCB, too, and is copied anew from a
; pristine image before each case, so that cases cannot influence each other through it.
;
; Operations on the disk (after a magic dword and the number of sectors as a dword; all little endian):
;   0 end
;   1 describe                    -> P records and an H record
;   2 image    count:4 {address:4 length:4 bytes}   into the pristine copy of the arena
;   3 baseline id:1 bytes:4096    a VMCB
;   4 case     index:4 id:1 flags:1 pokes:4 {address:4 length:4 bytes}  -> R
;
; Records in the report:
;   P leaf:4 subleaf:4 eax:4 ebx:4 ecx:4 edx:4 | H cr0:8 cr4:8 efer:8 | E | . (a batch of the disk was read)
;   R index:4 kind:1 vector:4 exitcode:8 exitinfo1:8 exitinfo2:8 exitintinfo:8

%define ROM             0xF0000
%define ARENA           0x20000
%define ARENA_BYTES     0x20000
%define VMCB            0x30000         ; in the arena
%define PAGE_TABLES     0x100000        ; PML4, PDPT and four page directories
%define HOST_SAVE       0x110000
%define IDT             0x113000
%define STACK           0x116000        ; grows down from here
%define VARIABLES       0x117000
%define PRISTINE        0x200000
%define STREAM          0x400000        ; to the end of the first 16 MiB

%define CODE32          0x08
%define DATA            0x10
%define CODE64          0x18

%define MAGIC           0x4D565350      ; "PSVM"

%define STUB_BYTES      7               ; push byte, jmp near

; Flags of a case.
%define NO_PAGING       1               ; VMRUN by a host in 32-bit mode without paging

; Kinds of result.
%define EXITED          0
%define HOST_FAULT      1               ; VMRUN itself raised an exception

struc var
.stream:        resq 1                  ; next operation
.fixup:         resq 1                  ; where an expected exception goes on, or 0
.pokes:         resq 1
.baselines:     resq 256
.poke_count:    resd 1
.flags:         resd 1
.record:
.r_mark:        resb 1
.r_index:       resd 1
.r_kind:        resb 1
.r_vector:      resd 1
.r_code:        resq 1
.r_info1:       resq 1
.r_info2:       resq 1
.r_event:       resq 1
.record_end:
endstruc

%define V(name) VARIABLES + var. %+ name

%include "long_mode_start.inc"

        call read_disk
        mov qword [V(stream)], STREAM + 8

        mov ecx, 0xC0000080             ; EFER.SVME
        mov qword [V(fixup)], stop
        call rdmsr64
        or eax, 1 << 12
        call wrmsr64
        mov ecx, 0xC0010117             ; VM_HSAVE_PA
        mov eax, HOST_SAVE
        call wrmsr64
        mov qword [V(fixup)], 0

next_operation:
        mov rsi, [V(stream)]
        lodsb
        cmp al, 1
        je describe
        cmp al, 2
        je image
        cmp al, 3
        je baseline
        cmp al, 4
        je run_case
        test al, al
        jnz stop                        ; a damaged stream: end without "Shutdown"
        mov al, 'E'
        call put
        mov esi, shutdown_text
        mov ecx, 8
        mov dx, 0x8900
        rep outsb
stop:
        cli
        hlt
        jmp stop

; --- operations -------------------------------------------------------------------------------------------

describe:
        mov [V(stream)], rsi
        mov ebp, leaf_list
.leaf:  mov eax, [rbp]
        mov ecx, [rbp + 4]
        cmp eax, -1
        je .host
        cpuid
        mov r8d, eax
        mov r9d, ecx
        mov r10d, edx
        mov al, 'P'
        call put
        mov eax, [rbp]
        call put32
        mov eax, [rbp + 4]
        call put32
        mov eax, r8d
        call put32
        mov eax, ebx
        call put32
        mov eax, r9d
        call put32
        mov eax, r10d
        call put32
        add ebp, 8
        jmp .leaf
.host:  mov al, 'H'
        call put
        mov rax, cr0
        call put64
        mov rax, cr4
        call put64
        mov ecx, 0xC0000080
        call rdmsr64
        call put64
        jmp next_operation

image:
        lodsd
        mov ebx, eax
        mov edx, PRISTINE - ARENA
        call poke
        mov [V(stream)], rsi
        jmp next_operation

baseline:
        xor eax, eax
        lodsb
        mov [V(baselines) + rax * 8], rsi
        add rsi, 4096
        mov [V(stream)], rsi
        jmp next_operation

run_case:
        mov edi, V(record)
        xor eax, eax
        mov ecx, var.record_end - var.record
        rep stosb
        mov byte [V(r_mark)], 'R'
        lodsd
        mov [V(r_index)], eax
        xor eax, eax
        lodsb
        mov rdx, [V(baselines) + rax * 8]
        lodsb
        mov [V(flags)], eax
        lodsd
        mov [V(poke_count)], eax
        mov [V(pokes)], rsi

        mov esi, PRISTINE
        mov edi, ARENA
        mov ecx, ARENA_BYTES / 8
        rep movsq
        mov rsi, rdx
        mov edi, VMCB
        mov ecx, 4096 / 8
        rep movsq
        mov rsi, [V(pokes)]
        mov ebx, [V(poke_count)]
        xor edx, edx
        call poke
        mov [V(stream)], rsi

        mov qword [V(fixup)], .refused
        test byte [V(flags)], NO_PAGING
        jnz .without_paging
        call clear_registers
        mov eax, VMCB
        vmrun
.exited:
        mov qword [V(fixup)], 0
        mov rax, [VMCB + 0x70]
        mov [V(r_code)], rax
        mov rax, [VMCB + 0x78]
        mov [V(r_info1)], rax
        mov rax, [VMCB + 0x80]
        mov [V(r_info2)], rax
        mov rax, [VMCB + 0x88]
        mov [V(r_event)], rax
.report:
        mov esi, V(record)
        mov ecx, var.record_end - var.record
.byte:  lodsb
        call put
        dec ecx
        jnz .byte
        jmp next_operation
.refused:
        mov byte [V(r_kind)], HOST_FAULT
        mov [V(r_vector)], eax
        jmp .report

; CR0.PG can be cleared in compatibility mode only, and that ends long mode.
.without_paging:
        push CODE32
        push .compatibility
        retfq
bits 32
.compatibility:
        mov eax, cr0
        and eax, 0x7FFFFFFF
        mov cr0, eax
        mov eax, VMCB
        vmrun
        mov eax, cr0
        or eax, 0x80000000
        mov cr0, eax
        jmp CODE64:.exited
bits 64

; --- helpers ----------------------------------------------------------------------------------------------

; Copy ebx runs of bytes at rsi to their address plus rdx; rsi moves behind them.
poke:   test ebx, ebx
        jz .done
        mov edi, [rsi]
        add rdi, rdx
        mov ecx, [rsi + 4]
        add rsi, 8
        rep movsb
        dec ebx
        jmp poke
.done:  ret

; The guest sees zero in every general register but rax and rsp, which the VMCB holds.
clear_registers:
        xor ebx, ebx
        xor ecx, ecx
        xor edx, edx
        xor esi, esi
        xor edi, edi
        xor ebp, ebp
        xor r8d, r8d
        xor r9d, r9d
        xor r10d, r10d
        xor r11d, r11d
        xor r12d, r12d
        xor r13d, r13d
        xor r14d, r14d
        xor r15d, r15d
        ret

%include "long_mode_io.inc"

; --- exceptions of the host -------------------------------------------------------------------------------

stubs:
%assign vector 0
%rep 32
        push byte vector
        jmp near fault
%assign vector vector + 1
%endrep

fault:
        mov rax, [rsp]                  ; the vector
        mov rcx, [V(fixup)]
        mov rsp, STACK
        mov qword [V(fixup)], 0
        test rcx, rcx
        jz stop                         ; the host cannot be repaired: let the watchdog end the run
        jmp rcx

gdt_pointer:
        dw gdt_end - gdt - 1
        dd gdt
        dd 0
idt_pointer:
        dw 32 * 16 - 1
        dq IDT
align 8
gdt:    dq 0
        dq 0x00CF9B000000FFFF           ; 32-bit code
        dq 0x00CF93000000FFFF           ; data
        dq 0x00AF9B000000FFFF           ; 64-bit code
gdt_end:
shutdown_text:
        db "Shutdown"
align 4
leaf_list:
        dd 0, 0, 1, 0, 7, 0, 0x80000000, 0, 0x80000001, 0, 0x80000008, 0, 0x8000000A, 0, -1

times 0xFFF0 - ($ - $$) db 0xFF
bits 16
        jmp 0xF000:start16 - $$
times 0x10000 - ($ - $$) db 0xFF
