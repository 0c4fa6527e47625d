(** * The control program (section 4 of the paper)

    The paper's control program is a dispatcher, an allocator and one interpretive routine for each
    privileged instruction.  Here it is a function, made of the machine's own step: where the hardware
    stops, recover the guest from the state that the control program is entered in, take one step of the
    guest's bare machine, and load the result.  So the paper's Lemma 2, that an interpretive routine
    exists, is a construction ([interprets]) and not a hypothesis.

    Choice: the routine interprets the *fetched* instruction.  One routine for all instructions, which
    sees the entry state alone, contradicts a trap that exchanges PSWs and a one-one f
    ([Counters/Choices.v], [one_routine_for_all]).

    Time is counted in steps: one step of the hardware, or one action of the control program. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine Popek.Premises.

Section Monitor.
  Variable m : machine.
  Variable v : technique m.
  (** Which guests the hardware runs directly: all (Theorem 1), those in user mode (Theorem 3).  The
      control program knows from its notes. *)
  Variable direct : notes v -> bool.
  Variable p : private v.
  Implicit Types (S T : state m).

  Inductive place : Type :=
  | Running (h : state m)               (* the hardware runs the guest *)
  | Entered (c : cause m) (h : state m) (* the dispatcher has control, the hardware having stopped in h *)
  | Interpreting (S : state m).         (* the interpreter has control, and the guest's state *)

  Definition host : Type := (place * notes v)%type.

  (** The allocator and the dispatcher's exit. *)
  Definition resume S : host :=
    (if direct (note v S) then Running (image v S p) else Interpreting S, note v S).

  Definition host_step (x : host) : host :=
    match x with
    | (Running h, n) =>
        match fetch m h with
        | inl c => (Entered c (enter v c h), n)
        | inr i => match perform m i h with
                   | Next T => (Running T, n)
                   | Trap c T => (Entered c (enter v c T), n)
                   end
        end
    | (Entered c h, n) => resume (step m (recover v c p n h))
    | (Interpreting G, _) => resume (step m G)
    end.

  Fixpoint host_run (h : nat) (x : host) : host :=
    match h with 0 => x | Datatypes.S h => host_step (host_run h x) end.

  Lemma host_run_add a c x : host_run (a + c) x = host_run a (host_run c x).
  Proof. induction a; simpl; congruence. Qed.

  Lemma host_completes h T n : completes m h T -> host_step (Running h, n) = (Running T, n).
  Proof. intros (i & F & X). simpl. now rewrite F, X. Qed.

  Lemma host_stops h c T n : stops m h c T -> host_step (Running h, n) = (Entered c (enter v c T), n).
  Proof. intros [[F ->] | (i & F & X)]; simpl; now rewrite F, ?X. Qed.

  Lemma resume_direct S : direct (note v S) = true -> resume S = (Running (image v S p), note v S).
  Proof. intros D. unfold resume. now rewrite D. Qed.

  Lemma resume_held S : direct (note v S) = false -> resume S = (Interpreting S, note v S).
  Proof. intros D. unfold resume. now rewrite D. Qed.

  (** Lemma 2.  Wherever the hardware stops, the control program's action is the instruction's effect on
      the guest: it takes the hardware to the image of what the bare machine would be in. *)
  Lemma interprets S c T :
    A4_entry_tells m v -> ok v S p -> direct (note v S) = true -> stops m (image v S p) c T ->
    host_run 2 (resume S) = resume (step m S).
  Proof.
    intros A4 O D X. cbn [host_run]. rewrite resume_direct, (host_stops _ _ _ _ X) by easy.
    cbn [host_step]. now rewrite (A4 _ _ _ _ O X).
  Qed.
End Monitor.
Arguments Running {m}.
Arguments Entered {m}.
Arguments Interpreting {m}.
