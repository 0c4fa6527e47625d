; Bare-metal ROM that runs single instructions of a guest under SVM: reads VMCBs from the first ATA disk, runs each guest,
; reports on LPT1 how it left and what its state then is.
;
; The ROM is a small interpreter and knows as little as possible: what a VMCB holds, what the guest's memory looks like
; and what the exit code means is decided in harness.py, which writes the operations below to the disk.  The memory
; below ARENA_BYTES, with the VMCB in it, is copied anew from a pristine image before each case.
;
; Operations on the disk (after a magic dword and the number of sectors as a dword; all little endian):
;   0 end
;   2 image    count:4 {address:4 length:4 bytes}   into the pristine copy of the arena
;   6 case     index:4 pokes:4 {address:4 length:4 bytes} registers:144 pat:8 aux:8 watches:4 {address:4 length:4}
; The registers are rcx rdx rbx rbp rsi rdi r8 to r15 dr0 to dr3.
;
; Records in the report:
;   E | . (a batch of the disk was read)
;   R index:4 kind:1 vector:4 registers:144 clock:8 clock:8 pat:8 aux:8 xcr0:8 control area from 060H to 0DFH,
;     save area from 400H to 69FH, 2 words of the stack:8, the watched memory

%define ROM             0xF0000
%define ARENA_BYTES     0x56000
%define VMCB            0x50000         ; in the arena
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

%define MAGIC           0x4D565347      ; "GSVM"

%define STUB_BYTES      7               ; push byte, jmp near

%define EFER            0xC0000080
%define TSC_AUX         0xC0000103
%define VM_HSAVE_PA     0xC0010117
%define PAT             0x277

struc var
.stream:        resq 1                  ; next operation
.fixup:         resq 1                  ; where an expected exception goes on, or 0
.watches:       resq 1
.record:
.r_mark:        resb 1
.r_index:       resd 1
.r_kind:        resb 1
.r_vector:      resd 1
.r_registers:   resq 18
.r_before:      resq 1
.r_after:       resq 1
.r_pat:         resq 1
.r_aux:         resq 1
.r_xcr0:        resq 1
.record_end:
endstruc

%define V(name) VARIABLES + var. %+ name

%include "long_mode_start.inc"

        call read_disk
        mov qword [V(stream)], STREAM + 8

        mov rax, cr4                    ; OSXSAVE, so that XCR0 can be set right after a guest
        or eax, 1 << 18
        mov cr4, rax
        mov ecx, EFER                   ; SVME
        call rdmsr64
        or eax, 1 << 12
        call wrmsr64
        mov ecx, VM_HSAVE_PA
        mov eax, HOST_SAVE
        call wrmsr64

next_operation:
        mov rsi, [V(stream)]
        lodsb
        cmp al, 2
        je image
        cmp al, 6
        je run_guest
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

image:
        lodsd
        mov ebx, eax
        mov edx, PRISTINE
        call poke
        mov [V(stream)], rsi
        jmp next_operation

run_guest:
        mov edi, V(record)
        xor eax, eax
        mov ecx, var.record_end - var.record
        rep stosb
        mov byte [V(r_mark)], 'R'
        lodsd
        mov [V(r_index)], eax
        lodsd
        mov ebx, eax

        push rsi
        mov esi, PRISTINE
        xor edi, edi
        mov ecx, ARENA_BYTES / 8
        rep movsq
        pop rsi
        xor edx, edx
        call poke
        mov edi, V(r_registers)
        mov ecx, 18
        rep movsq
        lodsq
        mov ecx, PAT
        call wrmsr64
        lodsq
        mov ecx, TSC_AUX
        call wrmsr64
        mov [V(watches)], rsi
        lodsd                           ; the next operation lies behind the watches
        lea rsi, [rsi + rax * 8]
        mov [V(stream)], rsi

        mov qword [V(fixup)], .refused
        mov rax, [V(r_registers) + 112]
        mov dr0, rax
        mov rax, [V(r_registers) + 120]
        mov dr1, rax
        mov rax, [V(r_registers) + 128]
        mov dr2, rax
        mov rax, [V(r_registers) + 136]
        mov dr3, rax
        mov rax, [VMCB + 0x640]         ; Bochs' VMRUN does not load it
        mov cr2, rax
        mov eax, VMCB
        vmload
        rdtsc
        mov [V(r_before)], eax
        mov [V(r_before) + 4], edx
        mov rcx, [V(r_registers)]
        mov rdx, [V(r_registers) + 8]
        mov rbx, [V(r_registers) + 16]
        mov rbp, [V(r_registers) + 24]
        mov rsi, [V(r_registers) + 32]
        mov rdi, [V(r_registers) + 40]
        mov r8, [V(r_registers) + 48]
        mov r9, [V(r_registers) + 56]
        mov r10, [V(r_registers) + 64]
        mov r11, [V(r_registers) + 72]
        mov r12, [V(r_registers) + 80]
        mov r13, [V(r_registers) + 88]
        mov r14, [V(r_registers) + 96]
        mov r15, [V(r_registers) + 104]
        mov eax, VMCB
        vmrun
        mov eax, VMCB
        vmsave
        mov [V(r_registers)], rcx
        mov [V(r_registers) + 8], rdx
        mov [V(r_registers) + 16], rbx
        mov [V(r_registers) + 24], rbp
        mov [V(r_registers) + 32], rsi
        mov [V(r_registers) + 40], rdi
        mov [V(r_registers) + 48], r8
        mov [V(r_registers) + 56], r9
        mov [V(r_registers) + 64], r10
        mov [V(r_registers) + 72], r11
        mov [V(r_registers) + 80], r12
        mov [V(r_registers) + 88], r13
        mov [V(r_registers) + 96], r14
        mov [V(r_registers) + 104], r15
        rdtsc
        mov [V(r_after)], eax
        mov [V(r_after) + 4], edx
        mov rax, dr0
        mov [V(r_registers) + 112], rax
        mov rax, dr1
        mov [V(r_registers) + 120], rax
        mov rax, dr2
        mov [V(r_registers) + 128], rax
        mov rax, dr3
        mov [V(r_registers) + 136], rax
        mov ecx, PAT
        call rdmsr64
        mov [V(r_pat)], rax
        mov ecx, TSC_AUX
        call rdmsr64
        mov [V(r_aux)], rax
        xor ecx, ecx
        xgetbv
        mov [V(r_xcr0)], eax
        mov [V(r_xcr0) + 4], edx
        mov eax, 1                      ; as every guest finds it
        xor edx, edx
        xsetbv
.report:
        mov qword [V(fixup)], 0
        mov esi, V(record)
        mov ecx, var.record_end - var.record
        call put_bytes
        mov esi, VMCB + 0x60
        mov ecx, 0x80
        call put_bytes
        mov esi, VMCB + 0x400
        mov ecx, 0x2A0
        call put_bytes

        mov esi, [VMCB + 0x5D8]         ; rSP, as wide as the stack is
        test word [VMCB + 0x422], 1 << 10
        jnz .wide
        movzx esi, si
.wide:  add esi, [VMCB + 0x428]         ; SS base
        cmp esi, 0x40000                ; beyond the arena everything is one page
        jb .stack
        and esi, 0xFFF
        or esi, 0x1000000
.stack: mov ecx, 8
        call put_bytes

        mov rbx, [V(watches)]
        mov ebp, [rbx]
        add rbx, 4
.watch: test ebp, ebp
        jz next_operation
        mov esi, [rbx]
        mov ecx, [rbx + 4]
        call put_bytes
        add rbx, 8
        dec ebp
        jmp .watch
.refused:
        mov byte [V(r_kind)], 1
        mov [V(r_vector)], eax
        jmp .report

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

; Report ecx bytes at rsi.
put_bytes:
        jecxz .done
.byte:  lodsb
        call put
        dec ecx
        jnz .byte
.done:  ret

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

times 0xFFF0 - ($ - $$) db 0xFF
bits 16
        jmp 0xF000:start16 - $$
times 0x10000 - ($ - $$) db 0xFF
