; Bare-metal VM-entry harness: reads cases from the first ATA disk, tries each VM entry, reports on LPT1.
;
; The ROM is a small interpreter and knows as little as possible: what a VMCS holds, what the guest's memory
; looks like and what the outcome means is decided in harness.py, which writes the operations below to the
; disk. Host and guest share no memory but the arena, which is copied anew from a pristine image before each
; case, so that cases cannot influence each other through it.
;
; Operations on the disk (after a magic dword and the number of sectors as a dword; all little endian):
;   0 end
;   1 describe                    -> C, P and H records
;   2 probe    count:4 {encoding:4}             -> an F record each
;   3 image    count:4 {address:4 length:4 bytes}   into the pristine copy of the arena
;   4 baseline id:1 count:4 {encoding:4 value:8}
;   5 case     index:4 id:1 flags:1 fields:4 pokes:4 {encoding:4 value:8} {address:4 length:4 bytes}  -> R
;   6 guest    as a case, then registers:8*22 watches:4 {address:4 length:4}                          -> R G
;   7 fields   count:4 {encoding:4}             which a G record tells
;
; Records in the report:
;   C msr:4 value:8 | P leaf:4 subleaf:4 eax:4 ebx:4 ecx:4 edx:4 | H cr0:8 cr3:8 cr4:8 efer:8 pat:8 rip:8
;   F encoding:4 writable:1 | E | . (a batch of the disk was read)
;   R index:4 kind:1 error:4 encoding:4 reason:4 qualification:8 interruption:4 interruption-error:4
;     length:4 idt-vectoring:4 guest-rip:8
;   G registers:8*22 tsc-before:8 tsc-after:8 top-of-stack:4*10 {field:8} {watched bytes}
; The registers are RAX RCX RDX RBX RBP RSI RDI R8 to R15 CR2 DR0 DR1 DR2 DR3 DR6 CR8.

%define ROM             0xF0000
%ifndef ARENA
%define ARENA           0x20000
%define ARENA_BYTES     0x20000
%endif
%define PAGE_TABLES     0x100000        ; PML4, PDPT and four page directories
%define VMXON_REGION    0x110000
%define VMCS_REGION     0x111000
%define SPARE_VMCS      0x112000
%define IDT             0x113000
%define STACK           0x116000        ; grows down from here
%define VARIABLES       0x117000
%define PRISTINE        0x200000
%define STREAM          0x400000        ; to the end of the first 16 MiB

%define CODE32          0x08
%define DATA            0x10
%define CODE64          0x18

%define MAGIC           0x584D5650      ; "PVMX"

%define REGISTERS       22
%define STUB_BYTES      7               ; push byte, jmp near

; Flags of a case.
%define USE_VMRESUME    1
%define LAUNCHED        2               ; enter the unmodified baseline first
%define NO_CURRENT      4               ; VMCLEAR the current VMCS before the entry
%define MOV_SS          8               ; blocking by MOV SS at the time of the entry
%define MARK            16              ; leave a mark in the emulator's log before the case

%define NO_SUCH_FIELD   0x7FFE

; Kinds of result.
%define FAIL_INVALID    0
%define FAIL_VALID      1
%define EXITED          2
%define VMWRITE_FAILED  3
%define HOST_FAULT      4               ; an exception in root operation; `error` is the vector
%define SETUP_FAILED    5               ; the baseline did not enter or was not writable

struc var
.stream:        resq 1                  ; next operation
.fixup:         resq 1                  ; where an expected exception goes on, or 0
.cr0:           resq 1
.cr4:           resq 1
.efer:          resq 1
.pat:           resq 1
.apic_base:     resq 1
.has_cet:       resq 1
.resume_at:     resq 1                  ; where the exit handler goes on
.restoring:     resq 1
.fields:        resq 1
.pokes:         resq 1
.field_count:   resd 1
.poke_count:    resd 1
.flags:         resd 1
.baseline:      resd 1
.revision:      resd 1
.pointer:       resq 1                  ; memory operand of VMXON, VMCLEAR and VMPTRLD
.baselines:     resq 256
.reported:      resq 1                  ; the list of a `fields` operation, or 0
.extra:         resq 1                  ; what a `guest` operation adds
.guest:         resd 1                  ; whether the case is one of a `guest` operation
.registers:     resq REGISTERS
.before:        resq 1
.after:         resq 1
.record:
.r_mark:        resb 1
.r_index:       resd 1
.r_kind:        resb 1
.r_error:       resd 1
.r_encoding:    resd 1
.r_reason:      resd 1
.r_qual:        resq 1
.r_intr:        resd 1
.r_intr_error:  resd 1
.r_length:      resd 1
.r_vectoring:   resd 1
.r_rip:         resq 1
.record_end:
endstruc

%define V(name) VARIABLES + var. %+ name

%include "long_mode_start.inc"

        call read_disk
        mov qword [V(stream)], STREAM + 8

        xor eax, eax                    ; CPUID 7: does the CPU know CET?
        cpuid
        cmp eax, 7
        jb .no_cet
        mov eax, 7
        xor ecx, ecx
        cpuid
        and ecx, 1 << 7
        shr edx, 20
        and edx, 1
        or ecx, edx
        mov [V(has_cet)], rcx
.no_cet:
        mov ecx, 0x3A                   ; allow VMXON outside SMX, as firmware would
        mov qword [V(fixup)], .locked
        rdmsr
        test al, 1
        jnz .locked
        or al, 5
        wrmsr
.locked:
        mov qword [V(fixup)], 0
        mov rax, cr4
        or eax, 1 << 13                 ; VMXE
        mov cr4, rax
        mov [V(cr4)], rax
        mov rax, cr0
        mov [V(cr0)], rax
        mov ecx, 0xC0000080
        call rdmsr64
        mov [V(efer)], rax
        mov ecx, 0x277
        call rdmsr64
        mov [V(pat)], rax
        mov ecx, 0x1B
        call rdmsr64
        mov [V(apic_base)], rax
        mov ecx, 0x480
        call rdmsr64
        and eax, 0x7FFFFFFF
        mov [V(revision)], eax
        mov [VMXON_REGION], eax
        mov qword [V(pointer)], VMXON_REGION
        vmxon [V(pointer)]
        jbe stop

next_operation:
        mov rsi, [V(stream)]
        lodsb
        cmp al, 1
        je describe
        cmp al, 2
        je probe
        cmp al, 3
        je image
        cmp al, 4
        je baseline
        cmp al, 5
        je run_case
        cmp al, 6
        je run_guest
        cmp al, 7
        je reported_fields
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
        mov ebx, msr_list
.msr:   mov ecx, [rbx]
        test ecx, ecx
        jz .leaves
        add ebx, 4
        mov qword [V(fixup)], .msr      ; an absent MSR gives #GP: leave it out
        call rdmsr64
        mov qword [V(fixup)], 0
        mov rdi, rax
        mov al, 'C'
        call put
        mov eax, ecx
        call put32
        mov rax, rdi
        call put64
        jmp .msr
.leaves:
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
        mov rax, [V(cr0)]
        call put64
        mov rax, cr3
        call put64
        mov rax, [V(cr4)]
        call put64
        mov rax, [V(efer)]
        call put64
        mov rax, [V(pat)]
        call put64
        mov eax, exit_handler
        call put64
        jmp next_operation

probe:
        call fresh_vmcs
        lodsd
        mov ebx, eax
.one:   test ebx, ebx
        jz .done
        lodsd
        mov r8d, eax
        xor r9d, r9d
        xor ecx, ecx
        vmwrite r8, rcx
        setnbe r9b
        mov al, 'F'
        call put
        mov eax, r8d
        call put32
        mov al, r9b
        call put
        dec ebx
        jmp .one
.done:  mov [V(stream)], rsi
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
        lodsd
        lea rax, [rax + rax * 2]
        lea rsi, [rsi + rax * 4]
        mov [V(stream)], rsi
        jmp next_operation

reported_fields:
        mov [V(reported)], rsi
        lodsd
        lea rsi, [rsi + rax * 4]
        mov [V(stream)], rsi
        jmp next_operation

run_guest:
        mov dword [V(guest)], 1
        jmp begin_case
run_case:
        mov dword [V(guest)], 0
begin_case:
        mov edi, V(record)
        xor eax, eax
        mov ecx, var.record_end - var.record
        rep stosb
        mov byte [V(r_mark)], 'R'
        lodsd
        mov [V(r_index)], eax
        xor eax, eax
        lodsb
        mov [V(baseline)], eax
        lodsb
        mov [V(flags)], eax
        lodsd
        mov [V(field_count)], eax
        mov ebx, eax
        lodsd
        mov [V(poke_count)], eax
        mov ecx, eax
        mov [V(fields)], rsi
        lea rbx, [rbx + rbx * 2]
        lea rsi, [rsi + rbx * 4]
        mov [V(pokes)], rsi
.skip:  test ecx, ecx
        jz .known
        mov eax, [rsi + 4]
        lea rsi, [rsi + rax + 8]
        dec ecx
        jmp .skip
.known: cmp dword [V(guest)], 0
        je .read
        mov [V(extra)], rsi
        add rsi, REGISTERS * 8
        lodsd
        lea rsi, [rsi + rax * 8]
.read:  mov [V(stream)], rsi

        mov esi, PRISTINE
        mov edi, ARENA
        mov ecx, ARENA_BYTES / 8
        rep movsq
        call fresh_vmcs

        test byte [V(flags)], MARK
        jz .unmarked
        mov edx, NO_SUCH_FIELD          ; Bochs complains about this one in its log
        vmwrite rdx, rdx
.unmarked:
        test byte [V(flags)], LAUNCHED
        jz .modify
        call write_baseline
        mov qword [V(resume_at)], .modify
        call clear_registers
        vmlaunch
        mov byte [V(r_kind)], SETUP_FAILED
        mov ecx, 0x4400
        call read_field
        mov [V(r_error)], eax
        jmp finish_case
.modify:
        call write_baseline
        mov rsi, [V(fields)]
        mov ebx, [V(field_count)]
.field: test ebx, ebx
        jz .poke
        mov edx, [rsi]
        mov rax, [rsi + 4]
        add rsi, 12
        dec ebx
        vmwrite rdx, rax
        ja .field
        mov byte [V(r_kind)], VMWRITE_FAILED
        mov [V(r_encoding)], edx
        mov ecx, 0x4400
        call read_field
        mov [V(r_error)], eax
        jmp finish_case
.poke:  mov rsi, [V(pokes)]
        mov ebx, [V(poke_count)]
        xor edx, edx
        call poke
        test byte [V(flags)], NO_CURRENT
        jz .enter
        mov qword [V(pointer)], VMCS_REGION
        vmclear [V(pointer)]
.enter: mov qword [V(resume_at)], record_exit
        cmp dword [V(guest)], 0
        jne .guest
        mov eax, [V(flags)]
        test al, USE_VMRESUME
        jnz .resume
        test al, MOV_SS
        call clear_registers            ; keeps the flags
        jz .launch
        mov ss, [data_selector]
.launch:
        vmlaunch
        jmp .failed
.resume:
        test al, MOV_SS
        call clear_registers
        jz .resume_now
        mov ss, [data_selector]
.resume_now:
        vmresume
        jmp .failed
.guest: fninit
        mov rsi, [V(extra)]
        mov rax, [rsi + 120]
        mov cr2, rax
        mov rax, [rsi + 128]
        mov dr0, rax
        mov rax, [rsi + 136]
        mov dr1, rax
        mov rax, [rsi + 144]
        mov dr2, rax
        mov rax, [rsi + 152]
        mov dr3, rax
        mov rax, [rsi + 160]
        mov dr6, rax
        mov rax, [rsi + 168]
        mov cr8, rax
        rdtsc
        mov [V(before)], eax
        mov [V(before) + 4], edx
        call clear_registers
        mov rsi, [V(extra)]
        mov rax, [rsi + 0]
        mov rcx, [rsi + 8]
        mov rdx, [rsi + 16]
        mov rbx, [rsi + 24]
        mov rbp, [rsi + 32]
        mov rdi, [rsi + 48]
        mov r8, [rsi + 56]
        mov r9, [rsi + 64]
        mov r10, [rsi + 72]
        mov r11, [rsi + 80]
        mov r12, [rsi + 88]
        mov r13, [rsi + 96]
        mov r14, [rsi + 104]
        mov r15, [rsi + 112]
        mov rsi, [rsi + 40]
        vmlaunch
.failed:
        jc .invalid
        mov byte [V(r_kind)], FAIL_VALID
        mov ecx, 0x4400
        call read_field
        mov [V(r_error)], eax
        jmp finish_case
.invalid:
        mov byte [V(r_kind)], FAIL_INVALID
        jmp finish_case

record_exit:
        mov byte [V(r_kind)], EXITED
        mov ecx, 0x4402
        call read_field
        mov [V(r_reason)], eax
        mov ecx, 0x6400
        call read_field
        mov [V(r_qual)], rax
        mov ecx, 0x4404
        call read_field
        mov [V(r_intr)], eax
        mov ecx, 0x4406
        call read_field
        mov [V(r_intr_error)], eax
        mov ecx, 0x440C
        call read_field
        mov [V(r_length)], eax
        mov ecx, 0x4408
        call read_field
        mov [V(r_vectoring)], eax
        mov ecx, 0x681E
        call read_field
        mov [V(r_rip)], rax

finish_case:
        cmp dword [V(guest)], 0         ; whose memory is to be watched, and lies in the arena
        jne .report
        mov rsi, [V(pokes)]             ; memory outside the arena is zero between cases
        mov ebx, [V(poke_count)]
.undo:  test ebx, ebx
        jz .report
        mov edi, [rsi]
        mov ecx, [rsi + 4]
        lea rsi, [rsi + rcx + 8]
        xor eax, eax
        rep stosb
        dec ebx
        jmp .undo
.report:
        mov esi, V(record)
        mov ecx, var.record_end - var.record
.byte:  lodsb
        call put
        dec ecx
        jnz .byte
        cmp dword [V(guest)], 0
        je next_operation
        mov al, 'G'
        call put
        mov rax, cr2
        mov [V(registers) + 120], rax
        mov rax, dr0
        mov [V(registers) + 128], rax
        mov rax, dr1
        mov [V(registers) + 136], rax
        mov rax, dr2
        mov [V(registers) + 144], rax
        mov rax, dr3
        mov [V(registers) + 152], rax
        mov rax, dr6
        mov [V(registers) + 160], rax
        mov rax, cr8
        mov [V(registers) + 168], rax
        xor eax, eax
        mov cr8, rax
        mov esi, V(registers)
        mov ecx, REGISTERS * 8 + 16
        call put_bytes
        mov ecx, 0x681C                 ; what lies at the top of the guest's stack
        call read_field
        mov esi, eax
        mov ecx, 0x4818
        call read_field
        test eax, 1 << 14
        jnz .wide
        movzx esi, si
.wide:  mov ecx, 0x680A
        call read_field
        add esi, eax
        cmp esi, -4096                  ; the page tables end at 4 GiB
        jb .below
        xor esi, esi
.below: mov ecx, 10 * 4
        call put_bytes
        mov rsi, [V(reported)]
        lodsd
        mov ebx, eax
.told:  test ebx, ebx
        jz .watches
        lodsd
        mov ecx, eax
        call read_field
        call put64
        dec ebx
        jmp .told
.watches:
        mov rbp, [V(extra)]
        mov ebx, [rbp + REGISTERS * 8]
        add rbp, REGISTERS * 8 + 4
.watch: test ebx, ebx
        jz next_operation
        mov esi, [rbp]
        mov ecx, [rbp + 4]
        add rbp, 8
        call put_bytes
        dec ebx
        jmp .watch

; --- helpers ----------------------------------------------------------------------------------------------

; Make an empty, clear VMCS the current one. Keeps rsi.
fresh_vmcs:
        mov qword [V(pointer)], VMCS_REGION
        vmclear [V(pointer)]            ; the CPU may hold parts of the last one
        mov edi, VMCS_REGION
        xor eax, eax
        mov ecx, 4096 / 8
        rep stosq
        mov eax, [V(revision)]
        mov [VMCS_REGION], eax
        vmclear [V(pointer)]
        vmptrld [V(pointer)]
        ret

write_baseline:
        mov eax, [V(baseline)]
        mov rsi, [V(baselines) + rax * 8]
        lodsd
        mov ebx, eax
.field: test ebx, ebx
        jz .done
        mov edx, [rsi]
        mov rax, [rsi + 4]
        add rsi, 12
        dec ebx
        vmwrite rdx, rax
        ja .field
        mov [V(r_encoding)], edx
        mov byte [V(r_kind)], SETUP_FAILED
        mov rsp, STACK                  ; do not return
        jmp finish_case
.done:  ret

; Field ecx into rax; 0 if the CPU has no such field.
read_field:
        xor eax, eax
        vmread rax, rcx
        ret

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

; The guest sees zero in every general register but rsp. Keeps the flags.
clear_registers:
        mov rax, 0
        mov rbx, rax
        mov rcx, rax
        mov rdx, rax
        mov rsi, rax
        mov rdi, rax
        mov rbp, rax
        mov r8, rax
        mov r9, rax
        mov r10, rax
        mov r11, rax
        mov r12, rax
        mov r13, rax
        mov r14, rax
        mov r15, rax
        ret

rdmsr64:
        rdmsr
        shl rdx, 32
        or rax, rdx
        ret

; MSR ecx = rax.
wrmsr64:
        mov rdx, rax
        shr rdx, 32
        wrmsr
        ret

put64:  push rax
        call put32
        pop rax
        shr rax, 32
put32:  push rcx
        mov ecx, 4
.next:  push rax
        call put
        pop rax
        shr eax, 8
        dec ecx
        jnz .next
        pop rcx
        ret

; ecx bytes at rsi.
put_bytes:
        jecxz .done
        lodsb
        call put
        dec ecx
        jmp put_bytes
.done:  ret

; One byte to the parallel port: data, then a strobe. Keeps everything but al and dx.
put:    mov dx, 0x378
        out dx, al
        mov dx, 0x37A
        mov al, 0x0D
        out dx, al
        mov al, 0x0C
        out dx, al
        ret

; The first dword of the disk is a magic, the second the number of sectors in use.
read_disk:
        mov r8d, STREAM
        xor r9d, r9d                    ; sector
        mov r10d, 1                     ; sectors still to read
.batch: mov r11d, r10d
        cmp r11d, 128
        jbe .command
        mov r11d, 128
.command:
        call .wait_idle
        mov dx, 0x1F2
        mov al, r11b
        out dx, al
        mov eax, r9d
        inc edx
        out dx, al
        shr eax, 8
        inc edx
        out dx, al
        shr eax, 8
        inc edx
        out dx, al
        shr eax, 8
        and al, 0x0F
        or al, 0xE0
        inc edx
        out dx, al
        inc edx
        mov al, 0x20                    ; READ SECTORS
        out dx, al
        mov ebx, r11d
.sector:
        call .wait_data
        mov rdi, r8
        mov dx, 0x1F0
        mov ecx, 256
        rep insw
        add r8d, 512
        dec ebx
        jnz .sector
        test r9d, r9d
        jnz .counted
        cmp dword [STREAM], MAGIC
        jne stop
        mov r10d, [STREAM + 4]
.counted:
        mov al, '.'                     ; a sign of life for the watchdog
        call put
        add r9d, r11d
        sub r10d, r11d
        jnz .batch
        ret
.wait_idle:
        mov dx, 0x1F7
        in al, dx
        test al, 0x80
        jnz .wait_idle
        ret
.wait_data:
        mov dx, 0x1F7
        in al, dx
        test al, 0x80
        jnz .wait_data
        test al, 0x01
        jnz stop
        test al, 0x08
        jz .wait_data
        ret

; --- exceptions in root operation -------------------------------------------------------------------------


stubs:
%assign vector 0
%rep 32
        push byte vector
        jmp near fault
%assign vector vector + 1
%endrep

fault:
        mov rax, [rsp]                  ; the vector
        mov rsp, [V(fixup)]
        test rsp, rsp
        jz .unexpected
        mov rcx, rsp
        mov rsp, STACK
        mov qword [V(fixup)], 0
        jmp rcx
.unexpected:
        mov rsp, STACK
        cmp qword [V(restoring)], 0
        jne stop                        ; the host cannot be repaired: let the watchdog end the run
        cmp byte [V(r_mark)], 'R'
        jne stop
        mov byte [V(r_kind)], HOST_FAULT
        mov [V(r_error)], eax
        mov qword [V(resume_at)], finish_case
        jmp restore_host

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
data_selector:
        dw DATA
shutdown_text:
        db "Shutdown"
align 4
msr_list:
%assign msr 0x480
%rep 0x14
        dd msr
%assign msr msr + 1
%endrep
        dd 0x1B, 0x3A, 0
leaf_list:
        dd 0, 0, 1, 0, 7, 0, 7, 1, 0xA, 0, 0xD, 0, 0xD, 1, 0x12, 0, 0x14, 0, 0x14, 1, 0x19, 0, 0x1C, 0
        dd 0x80000000, 0, 0x80000001, 0, 0x80000007, 0, 0x80000008, 0, -1

; --- VM exits ---------------------------------------------------------------------------------------------

; A case may have put any legal value into the host-state area except RIP and CR3, so nothing loaded from
; there is trusted: neither rsp, nor segments, nor tables, nor the control bits of CR0, CR4 and EFER.
align 16
exit_handler:
        endbr64                         ; the host's CET state may wait for one
        mov [V(registers) + 0], rax
        mov [V(registers) + 8], rcx
        mov [V(registers) + 16], rdx
        mov [V(registers) + 24], rbx
        mov [V(registers) + 32], rbp
        mov [V(registers) + 40], rsi
        mov [V(registers) + 48], rdi
        mov [V(registers) + 56], r8
        mov [V(registers) + 64], r9
        mov [V(registers) + 72], r10
        mov [V(registers) + 80], r11
        mov [V(registers) + 88], r12
        mov [V(registers) + 96], r13
        mov [V(registers) + 104], r14
        mov [V(registers) + 112], r15
        rdtsc
        mov [V(after)], eax
        mov [V(after) + 4], edx
restore_host:
        mov rsp, STACK
        mov qword [V(restoring)], 1
        mov rax, [V(cr4)]
        mov cr4, rax
        mov rax, [V(cr0)]
        mov cr0, rax
        lgdt [gdt_pointer]
        lidt [idt_pointer]
        push CODE64
        push .reloaded
        retfq
.reloaded:
        mov ax, DATA
        mov ds, ax
        mov es, ax
        mov ss, ax
        mov fs, ax
        mov gs, ax
        mov ecx, 0xC0000080
        mov rax, [V(efer)]
        call wrmsr64
        mov ecx, 0x277
        mov rax, [V(pat)]
        call wrmsr64
        cmp qword [V(has_cet)], 0
        je .apic
        mov ecx, 0x6A2                  ; IA32_S_CET
        xor eax, eax
        call wrmsr64
.apic:  mov ecx, 0x1B                   ; an MSR-load area may have switched the local APIC's mode
        call rdmsr64
        cmp rax, [V(apic_base)]
        je .done
        test eax, 0x400                 ; the way back from x2APIC mode, and no other, leads through "disabled"
        mov rax, [V(apic_base)]
        jz .back
        and eax, ~0xC00
        call wrmsr64
        mov rax, [V(apic_base)]
.back:
        call wrmsr64
.done:  mov qword [V(restoring)], 0
        jmp [V(resume_at)]

times 0xFFF0 - ($ - $$) db 0xFF
bits 16
        jmp 0xF000:start16 - $$
times 0x10000 - ($ - $$) db 0xFF
