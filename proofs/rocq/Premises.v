(** * The premises A0 to A10: one hypothesis, one name

    These are what has to be shown of a machine and a technique, whatever they are; the theorems follow
    from them alone.  For the paper's machine they are proved in [Theorem1.v] and [Theorem3.v].  For any
    other machine each is a question for a solver, asked with the same name; that instantiation is made
    outside the prover.

    A technique says how a guest's state S and the control program's part P become a state of the
    hardware, and what the control program notes of S elsewhere. *)

From Coq Require Import List Arith Lia.
Require Import Popek.Machine.

Record technique (m : machine) : Type := {
  private : Type;                      (* P: what the control program has *)
  notes : Type;                        (* what it notes of the guest outside the hardware's state *)
  image : state m -> private -> state m;      (* f(S, P) *)
  note : state m -> notes;                    (* n(S) *)
  ok : state m -> private -> Prop;     (* S is a guest and P is a control program's part that fits *)
  deprivileged : state m -> Prop;      (* how the hardware is while a guest runs *)
  owned_part : Type;
  owned : private -> state m -> owned_part;   (* what the control program owns of a hardware state *)
  vector_part : Type;
  vector : state m -> vector_part;            (* where a trap of the hardware goes *)
  entry_of : private -> vector_part;          (* the control program's entry *)
  enter : cause m -> state m -> state m;      (* what the hardware does where it stops *)
  recover : cause m -> private -> notes -> state m -> state m;  (* U: reads the guest off the hardware *)
  virtual_user : notes -> bool         (* is the guest in its own user mode?  For Theorem 3 *)
}.
Arguments private {m}.
Arguments notes {m}.
Arguments image {m}.
Arguments note {m}.
Arguments ok {m}.
Arguments deprivileged {m}.
Arguments owned_part {m}.
Arguments owned {m}.
Arguments vector_part {m}.
Arguments vector {m}.
Arguments entry_of {m}.
Arguments enter {m}.
Arguments recover {m}.
Arguments virtual_user {m}.

Section Premises.
  Variable m : machine.
  Variable v : technique m.
  Implicit Types (S T : state m) (p : private v) (i : instruction m) (c : cause m).

  (** A0.  The image of a guest is a deprivileged hardware state. *)
  Definition A0_image : Prop := forall S p, ok v S p -> deprivileged v (image v S p).

  (** A1.  If i completes on f(S, P), it completes on S, and the hardware is then in the image of where
      it completes; the notes are still true. *)
  Definition fidelity (direct : notes v -> bool) : Prop :=
    forall i S p T, ok v S p -> direct (note v S) = true ->
      perform m i (image v S p) = Next T ->
      exists S', perform m i S = Next S' /\ T = image v S' p /\ note v S' = note v S.
  Definition A1_fidelity : Prop := fidelity (fun _ => true).

  (** A2.  What is fetched from f(S, P) is what is fetched from S. *)
  Definition A2_fetch : Prop :=
    forall S p i, ok v S p -> fetch m (image v S p) = inr i -> fetch m S = inr i.

  (** A3.  A guest that completes or traps is a guest still.  Where it is not asked, or does not hold,
      the theorems say "while the guest stays ok". *)
  Definition A3_closure_next : Prop :=
    forall i S p T, ok v S p -> perform m i S = Next T -> ok v T p.
  Definition A3_closure_trap : Prop :=
    forall S p c T, ok v S p -> stops m S c T -> ok v (deliver m c T) p.
  Definition A3_closure : Prop := A3_closure_next /\ A3_closure_trap.

  (** A4.  Wherever the hardware stops, its entry state tells the guest. *)
  Definition A4_entry_tells : Prop :=
    forall S p c T, ok v S p -> stops m (image v S p) c T ->
      recover v c p (note v S) (enter v c T) = S.

  (** A4 without terms for the recovering: guests that look the same at an entry are alike in what they do next.
      The control program interprets one instruction; which of them it was does not matter after that. *)
  Definition A4_entry_tells_apart : Prop :=
    forall S S' p c T T', ok v S p -> ok v S' p -> note v S = note v S' ->
      stops m (image v S p) c T -> stops m (image v S' p) c T' ->
      enter v c T = enter v c T' -> step m S = step m S'.

  (** One half of A4, asked once: the image and the notes tell the guest, whatever [same] leaves out.  The other
      half is asked of each instruction: where it stops, the entry state tells the image, or what is lost makes no
      difference. *)
  Definition A4_image_tells (same : state m -> state m -> Prop) : Prop :=
    forall S S' p, ok v S p -> ok v S' p -> note v S = note v S' ->
      same (image v S p) (image v S' p) -> same S S'.
  Definition A4_stop_tells : Prop :=
    forall S S' p c T T', ok v S p -> ok v S' p -> note v S = note v S' ->
      stops m (image v S p) c T -> stops m (image v S' p) c T' ->
      enter v c T = enter v c T' -> image v S p = image v S' p \/ step m S = step m S'.

  (** A5.  The control program's resources in f(S, P) are fixed by P and by what is noted, and traps go
      to it. *)
  Definition A5_control : Prop :=
    forall S S' p, ok v S p -> ok v S' p -> note v S = note v S' ->
      owned v p (image v S p) = owned v p (image v S' p).
  Definition A5_vector : Prop := forall S p, ok v S p -> vector v (image v S p) = entry_of v p.

  (** A6.  An interrupt finds the guest too, and a guest that is given one is a guest still. *)
  Definition A6_interrupt_tells (enter_irq : state m -> state m)
      (recover_irq : private v -> notes v -> state m -> state m) : Prop :=
    forall S p, ok v S p -> recover_irq p (note v S) (enter_irq (image v S p)) = S.
  Definition A6_interrupt_closure (interrupt : state m -> state m) : Prop :=
    forall S p, ok v S p -> ok v (interrupt S) p.

  (** A6 without terms for the recovering: the hardware's state after an interrupt tells the image. *)
  Definition A6_interrupt_tells_apart (enter_irq : state m -> state m) : Prop :=
    forall S S' p, ok v S p -> ok v S' p -> note v S = note v S' ->
      enter_irq (image v S p) = enter_irq (image v S' p) -> image v S p = image v S' p.

  (** A6, where a guest may hold interrupts off: it does not begin to take them while the hardware runs on, so that
      the control program, which has one for it, does not come too late. *)
  Definition A6_interrupt_noticed (takes : state m -> bool) : Prop :=
    forall i S p T S', ok v S p -> takes S = false -> perform m i (image v S p) = Next T ->
      perform m i S = Next S' -> takes S' = false.

  (** A7.  The image of a guest is a guest of the next control program, where that one's part fits. *)
  Definition A7_nesting (fits : state m -> private v -> Prop) : Prop :=
    forall S p q, ok v S p -> fits (image v S p) q -> ok v (image v S p) q.

  (** A8.  What completes on S completes on f(S, P): asked of an instruction, for efficiency. *)
  Definition A8_efficiency i : Prop :=
    forall S p S', ok v S p -> perform m i S = Next S' -> exists T, perform m i (image v S p) = Next T.
  Definition A8_fetch : Prop :=
    forall S p i, ok v S p -> fetch m S = inr i -> fetch m (image v S p) = inr i.

  (** A9.  No clock is read by guests: from states equal but for clocks, the same completes, in such states, and
      traps are delivered in such states.  That a state is a guest, its image and its notes do not depend on
      clocks either, nor does what is fetched. *)
  Definition A9_no_clock (same : state m -> state m -> Prop) : Prop :=
    forall i S S' p T, ok v S p -> same S S' -> perform m i S = Next T ->
      exists T', perform m i S' = Next T' /\ same T T'.
  Definition A9_no_clock_trap (same : state m -> state m -> Prop) : Prop :=
    forall S S' p c c' T T', ok v S p -> same S S' -> stops m S c T -> stops m S' c' T' ->
      same (deliver m c T) (deliver m c' T').
  Definition A9_guests (same : state m -> state m -> Prop) : Prop :=
    forall S S' p, ok v S p -> same S S' -> ok v S' p.
  Definition A9_map (same : state m -> state m -> Prop) : Prop :=
    forall S S' p, ok v S p -> same S S' ->
      same (image v S p) (image v S' p) /\ note v S = note v S'.
  Definition A9_fetch (same : state m -> state m -> Prop) : Prop :=
    forall S S' p i, ok v S p -> same S S' -> fetch m S = inr i -> fetch m S' = inr i.

  (** A10.  As A1, asked of guests in their user mode only: Theorem 3. *)
  Definition A10_hybrid : Prop := fidelity (virtual_user v).

  Lemma A1_implies_A10 : A1_fidelity -> A10_hybrid.
  Proof. intros H i S p T O _. now apply H. Qed.

  Lemma A4_from_halves : A4_image_tells eq -> A4_stop_tells -> A4_entry_tells_apart.
  Proof.
    intros I E S S' p c T T' O O' N X X' Eq.
    destruct (E _ _ _ _ _ _ O O' N X X' Eq) as [Same | Same]; [| exact Same].
    f_equal. now apply (I S S' p).
  Qed.

  Lemma A4_apart_if_told : A4_entry_tells -> A4_entry_tells_apart.
  Proof.
    intros H S S' p c T T' O O' N X X' Eq. f_equal.
    rewrite <- (H _ _ _ _ O X), <- (H _ _ _ _ O' X'). now rewrite N, Eq.
  Qed.

  Lemma A6_apart_if_told enter_irq recover_irq :
    A6_interrupt_tells enter_irq recover_irq -> A6_interrupt_tells_apart enter_irq.
  Proof.
    intros H S S' p O O' N Eq. f_equal.
    rewrite <- (H _ _ O), <- (H _ _ O'). now rewrite N, Eq.
  Qed.
End Premises.

(** ** A1s: where the model does not speak

    What is asked of a solver is a model of the machine, which may leave cases out.  If the model never
    is silent where the hardware would run, and A1 holds of it, then A1 holds of every machine that does
    as the model says. *)
Section ModelSpeaks.
  Variable m : machine.
  Variable v : technique m.
  Variable said : instruction m -> state m -> option (outcome (state m) (cause m)).
  Hypothesis says_true : forall i S o, said i S = Some o -> perform m i S = o.

  Definition A1s_model_speaks : Prop :=
    forall i S p, ok v S p -> said i (image v S p) <> None.
  Definition A1_of_model (direct : notes v -> bool) : Prop :=
    forall i S p T, ok v S p -> direct (note v S) = true -> said i (image v S p) = Some (Next T) ->
      exists S', said i S = Some (Next S') /\ T = image v S' p /\ note v S' = note v S.

  Lemma model_suffices direct : A1s_model_speaks -> A1_of_model direct -> fidelity m v direct.
  Proof.
    intros Speaks A1 i S p T O D X.
    destruct (said i (image v S p)) as [o |] eqn:Said; [| now apply Speaks in Said].
    pose proof (says_true _ _ _ Said) as X'. rewrite X in X'. subst o.
    destruct (A1 _ _ _ _ O D Said) as (S' & X' & -> & N).
    exists S'. split; [now apply says_true | tauto].
  Qed.
End ModelSpeaks.
