; ---- What every image has ----------------------------------------------------------------------
        bits 32
make_gates:  ; an interrupt gate of ring 0 per vector, at EDI, as far as the limit EBX
        xor ecx, ecx
.next:  lea eax, [ecx * 8 + 7]
        cmp eax, ebx
        ja .done
        imul eax, ecx, STUB
        add eax, stubs
        mov [edi], ax
        mov word [edi + 2], CODE
        mov word [edi + 4], 0x8e00
        shr eax, 16
        mov [edi + 6], ax
        add edi, 8
        inc ecx
        cmp ecx, 256
        jb .next
.done:  ret

ended:  ; on the stack: vector, error code (0 where there is none), EIP, CS, EFLAGS and, from outer rings, ESP, SS
        pushad
        push ds
        push es
        push fs
        push gs
        mov eax, DATA
        mov ds, eax
        mov es, eax
        cld
        mov ebp, esp
        mov edi, SEEN
        xor ecx, ecx
.copy:  mov eax, [ss:ebp + ecx * 4]
        stosd
        inc ecx
        cmp ecx, 19
        jb .copy
%assign place 0
%rep 4
        mov word [SEEN + place + 2], 0  ; a pushed selector is 16 bits
%assign place place + 4
%endrep
        mov word [SEEN + 62], 0
        mov word [SEEN + 74], 0
        test byte [SEEN + 60], 3
        jnz .outer
        lea eax, [ebp + 68]  ; ring 0 keeps its stack
        mov [SEEN + 68], eax
        mov eax, ss
        mov [SEEN + 72], eax
.outer: mov eax, text_run
        call print
        mov al, [RUN]
        call print_byte
        mov esi, fields
.field: lodsd
        test eax, eax
        jz .watched
        call print
        lodsd
        mov eax, [eax]
        call print_dword
        jmp .field
.watched:
        mov ebx, [WATCH]
.range: mov ecx, [ebx + 4]
        jecxz .over
        mov edi, [ebx]
        mov eax, text_memory
        call print
        mov eax, edi
        call print_dword
        mov al, '='
        call print_character
.byte:  mov al, [edi]
        call print_byte
        inc edi
        loop .byte
        add ebx, 8
        jmp .range
.over:  mov al, 10
        call print_character
        jmp dword [NEXT]

print:  ; the text at EAX, which ends in 0
        push esi
        mov esi, eax
.next:  lodsb
        test al, al
        jz .done
        call print_character
        jmp .next
.done:  pop esi
        ret

print_dword:  ; EAX
        push ecx
        mov ecx, 4
.next:  rol eax, 8
        push eax
        call print_byte
        pop eax
        loop .next
        pop ecx
        ret

print_byte:  ; AL
        push eax
        shr al, 4
        call .digit
        pop eax
        and al, 15
.digit: add al, '0'
        cmp al, '9'
        jbe print_character
        add al, 'a' - '0' - 10

print_character:  ; AL, to port E9H and to the parallel port
        push edx
        out 0xe9, al
        mov edx, 0x378
        out dx, al
        mov edx, 0x37a
        mov al, 0x0d
        out dx, al
        mov al, 0x0c
        out dx, al
        pop edx
        ret

finish:
        mov esi, text_shutdown  ; Bochs ends at this
        mov edx, 0x8900
        mov ecx, 8
        rep outsb
        xor eax, eax  ; QEMU's isa-debug-exit at this
        mov edx, 0x501
        out dx, al
        cli
        hlt

fields:
{fields}
        dd 0
{texts}
text_run: db 'run=', 0
text_memory: db ' memory.', 0
text_shutdown: db 'Shutdown'

        align STUB
stubs:
%assign v 0
%rep 256
        align STUB
%if {error_codes}
%else
        push dword 0
%endif
        push dword v
        jmp ended
%assign v v + 1
%endrep

        align 8
gdt_0:  dq 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdtr_0: dw $ - gdt_0 - 1
        dd gdt_0

        bits 16
start:  cli
        mov al, 0xff  ; no interrupts
        out 0x21, al
        out 0xa1, al
        mov dx, 0x37a
        mov al, 0x0c
        out dx, al
        o32 lgdt [cs:gdtr_0 - $$]
        mov eax, 0x11
        mov cr0, eax
        jmp dword 8:start_32
        bits 32
start_32:
        mov eax, 0x10
        mov ds, eax
        mov es, eax
        mov ss, eax
        cld
        jmp run_1

        times 0xfff0 - ($ - $$) db 0xf4
        bits 16
        jmp start  ; the reset vector
        times 0x10000 - ($ - $$) db 0xf4
