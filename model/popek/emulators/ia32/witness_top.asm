%ifndef WITNESS
%define WITNESS 1
%endif

RUN     equ 0x9e000  ; number of the run
WATCH   equ 0x9e004  ; memory to report
NEXT    equ 0x9e008  ; where to go on
SEEN    equ 0x9e100  ; what the gate's frame and the registers hold
CODE    equ {reserved}  ; ring 0, flat: of the gates
DATA    equ {reserved} + 8
STUB    equ 16  ; bytes of code per vector

        org 0xf0000

%macro put 2+  ; linear address; bytes
        mov esi, %%data
        mov edi, %1
        mov ecx, %%end - %%data
        rep movsb
        jmp %%end
%%data: db %2
%%end:
%endmacro

%macro tables 4  ; memory of INT1s, a GDT (base, limit) with the descriptors of the gates, an IDT, a TSS
        mov eax, 0x10  ; flat data of the image's own GDT
        lgdt [gdtr_0]
        jmp 8:%%here
%%here: mov ds, eax
        mov es, eax
        mov ss, eax
        xor edi, edi
        mov ecx, {arena} / 4
        mov eax, {filler}
        rep stosd
        xor eax, eax
        mov edi, {gdt}
        mov ecx, 0x1000 / 4
        rep stosd
        mov edi, {tss}
        mov ecx, 0x68 / 4
        rep stosd
{stacks}
        mov edi, %3
        mov ebx, %4
        call make_gates
        put %1 + {reserved}, {descriptors}
%endmacro

%macro plain 0  ; control and debug registers
        mov eax, 0x11
        mov cr0, eax
        xor eax, eax
        mov cr2, eax
        mov cr3, eax
        mov cr4, eax
        mov dr0, eax
        mov dr1, eax
        mov dr2, eax
        mov dr3, eax
        mov eax, 0xffff0ff0
        mov dr6, eax
        mov eax, 0x400
        mov dr7, eax
%endmacro

        bits 32
