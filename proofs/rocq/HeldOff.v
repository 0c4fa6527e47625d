(** * Interrupts that a guest may hold off

    A machine need not take an interrupt at once: it waits until the machine takes it.  That is a machine again, whose
    state says whether one waits, and [Interrupts.v] speaks of it.  The hardware takes an interrupt at any time,
    whatever guest runs; the control program keeps it for the guest, and does not run a guest directly that would take
    one that waits.

    An interrupt that comes while another one waits is one with it. *)

From Coq Require Import List Arith Lia Bool.
Require Import Popek.Machine Popek.Premises Popek.Monitor Popek.Runs Popek.Theorem1 Popek.Interrupts.

Section HeldOff.
  Variable m : machine.
  Variable v : technique m.
  Variable takes : state m -> bool.          (* does the bare machine take an interrupt in this state? *)
  Variable interrupt : state m -> state m.   (* what it does then *)
  Variable enter_irq : state m -> state m.   (* what the hardware does while a guest runs *)
  Implicit Types (S : state m).

  (** One waits, and is taken before the next instruction. *)
  Definition due (x : state m * bool) : bool := snd x && takes (fst x).

  (** The bare machine, with an interrupt that may wait: one that is due is taken in the place of fetching. *)
  Definition held_machine : machine := {|
    state := state m * bool;
    instruction := instruction m;
    cause := option (cause m);
    fetch := fun x =>
      if due x then inl None
      else match fetch m (fst x) with inl c => inl (Some c) | inr i => inr i end;
    perform := fun i x =>
      match perform m i (fst x) with Next T => Next (T, snd x) | Trap c T => Trap (Some c) (T, snd x) end;
    deliver := fun c x =>
      match c with None => (interrupt (fst x), false) | Some c => (deliver m c (fst x), snd x) end
  |}.

  (** One comes: it is taken, or it waits. *)
  Definition comes (x : state held_machine) : state held_machine :=
    if takes (fst x) then (interrupt (fst x), false) else (fst x, true).

  (** The same map.  The control program notes whether one waits for the guest, and whether it is due; on the hardware
      none waits. *)
  Definition held : technique held_machine := {|
    private := private v;
    notes := notes v * (bool * bool);
    image := fun (x : state held_machine) p => (image v (fst x) p, false) : state held_machine;
    note := fun x : state held_machine => (note v (fst x), (snd x, due x));
    ok := fun (x : state held_machine) p => ok v (fst x) p;
    deprivileged := fun h : state held_machine => deprivileged v (fst h);
    owned_part := owned_part v;
    owned := fun p (h : state held_machine) => owned v p (fst h);
    vector_part := vector_part v;
    vector := fun h : state held_machine => vector v (fst h);
    entry_of := entry_of v;
    enter := fun (c : cause held_machine) (h : state held_machine) =>
      match c with None => h | Some c => (enter v c (fst h), snd h) : state held_machine end;
    recover := fun _ _ _ h => h;  (* not used: A4 and A6 with two guests *)
    virtual_user := fun n => virtual_user v (fst n)
  |}.

  (** A guest for which one is due is not run directly. *)
  Definition held_direct (direct : notes v -> bool) (n : notes held) : bool := direct (fst n) && negb (snd (snd n)).

  Definition held_enter (h : state held_machine) : state held_machine := (enter_irq (fst h), snd h).

  Section Premises.
    Variable direct : notes v -> bool.
    Hypothesis A1 : fidelity m v direct.
    Hypothesis A2 : A2_fetch m v.
    Hypothesis A4 : A4_entry_tells_apart m v.
    Hypothesis Noticed : A6_interrupt_noticed m v takes.

    Lemma held_completes (S : state m) (T : state held_machine) p :
      completes held_machine (image held (S, false) p) T ->
      exists i T0, fetch m (image v S p) = inr i /\ perform m i (image v S p) = Next T0 /\ T = (T0, false).
    Proof.
      intros (i & F & X). cbn in F, X. destruct (fetch m (image v S p)) as [c | j]; [discriminate |].
      injection F as ->. destruct (perform m i (image v S p)) as [T0 | c T0] eqn:X0; [| discriminate].
      injection X as <-. eauto.
    Qed.

    Lemma held_stops (S : state m) c (T : state held_machine) p :
      stops held_machine (image held (S, false) p) c T ->
      exists c0 T0, stops m (image v S p) c0 T0 /\ c = Some c0 /\ T = (T0, false).
    Proof.
      intros [[F ->] | (i & F & X)]; cbn in F.
      - destruct (fetch m (image v S p)) as [c0 | j] eqn:F0; [| discriminate]. injection F as <-.
        exists c0, (image v S p). split; [now left | easy].
      - destruct (fetch m (image v S p)) as [c0 | j] eqn:F0; [discriminate |]. injection F as ->. cbn in X.
        destruct (perform m i (image v S p)) as [T0 | c0 T0] eqn:X0; [discriminate |]. injection X as <- <-.
        exists c0, T0. split; [right; eauto | easy].
    Qed.

    Lemma held_step (S : state m) w : due (S, w) = false -> step held_machine (S, w) = (step m S, w).
    Proof.
      intros N. unfold step. cbn. rewrite N. destruct (fetch m S) as [c | i]; [easy |].
      cbn. destruct (perform m i S); easy.
    Qed.

    Lemma held_commutes p : step_commutes held_machine held (held_direct direct) p.
    Proof.
      intros [S w] T O D C. cbn in O. apply andb_prop in D. destruct D as [D N].
      cbn [note held snd fst] in D, N. apply negb_true_iff in N.
      destruct (held_completes S T p C) as (i & T0 & F & X & ->).
      destruct (A1 i S p T0 O D X) as (S' & X' & -> & Same).
      assert (step m S = S') as Step by (apply step_completes; exists i; split; [now apply (A2 S p) | easy]).
      rewrite held_step, Step by easy. split; [reflexivity |]. cbn. rewrite Same, N. do 2 f_equal.
      unfold due in *. cbn in *. destruct w; [| easy]. cbn in *. now apply (Noticed i S p (image v S' p)).
    Qed.

    Lemma held_told_apart p : direct_told_apart held_machine held (held_direct direct) p.
    Proof.
      intros [S w] [S' w'] c T T' O O' N D X X' Eq. cbn in O, O'. apply andb_prop in D. destruct D as [_ D].
      cbn [note held snd fst] in N, D. apply negb_true_iff in D.
      assert (note v S = note v S' /\ w = w' /\ due (S', w') = false) as (N0 & <- & D')
        by (injection N; intros; repeat split; congruence).
      destruct (held_stops S c T p X) as (c0 & T0 & X0 & -> & ->).
      destruct (held_stops S' (Some c0) T' p X') as (c1 & T1 & X1 & E1 & ->). injection E1 as <-.
      rewrite !held_step by easy. f_equal. apply (A4 S S' p c0 T0 T1); auto.
      cbn in Eq. now injection Eq.
    Qed.
  End Premises.

  (** If a guest's notes say whether it takes interrupts, A1 has it that nothing goes unnoticed. *)
  Lemma noticed_if_noted (noted : notes v -> bool) :
    A1_fidelity m v -> (forall S, takes S = noted (note v S)) -> A6_interrupt_noticed m v takes.
  Proof.
    intros A1 Noted i S p T S' O Off X X'.
    destruct (A1 i S p T O eq_refl X) as (S1 & X1 & _ & N). rewrite X' in X1. injection X1 as <-.
    now rewrite Noted, N, <- Noted.
  Qed.

  (** As a machine is asked it, whichever guests are run directly. *)
  Theorem held_off direct :
    A0_image m v -> fidelity m v direct -> A2_fetch m v -> A4_entry_tells_apart m v -> A4_image_tells m v eq ->
    A5_control m v -> A5_vector m v -> A6_interrupt_tells_apart m v enter_irq -> A6_interrupt_noticed m v takes ->
    monitored_with_interrupts held_machine held (held_direct direct) comes held_enter.
  Proof.
    intros A0 A1 A2 A4 A4i A5 A5v A6 A6n. apply with_interrupts.
    - intros [S w] p O. now apply A0.
    - intros p. now apply held_commutes.
    - intros p. now apply held_told_apart.
    - intros [S w] [S' w'] p O O' N Eq. cbn in *. injection N as N W _. injection Eq as Eq. subst w'.
      f_equal. now apply (A4i S S' p).
    - intros [S w] [S' w'] p O O' N. cbn in *. injection N as N _ _. now apply A5.
    - intros [S w] p O. now apply A5v.
    - intros [S w] [S' w'] p O O' N Eq. cbn in *. injection N as N _ _. injection Eq as Eq. f_equal. now apply A6.
  Qed.

  (** With closure, a guest that starts ok stays so under any schedule. *)
  Lemma held_closed events :
    A3_closure m v -> A6_interrupt_closure m v interrupt ->
    forall S p, ok v S p -> forall n, ok held (guest_run held_machine comes events n (S, false)) p.
  Proof.
    intros [A3 A3t] A6 S p O n. induction n as [| n IH]; [exact O |]. cbn [guest_run].
    destruct (guest_run held_machine comes events n (S, false)) as [G w]. cbn in IH |- *.
    destruct (events n); cbn; [| exact IH | unfold comes; cbn; destruct (takes G); cbn; [now apply A6 | exact IH]].
    unfold step. cbn. destruct (due (G, w)); cbn; [now apply A6 |].
    destruct (fetch m G) as [c | i] eqn:F; cbn; [apply (A3t G p c G IH); now left |].
    destruct (perform m i G) as [T | c T] eqn:X; cbn; [now apply (A3 i G) |].
    apply (A3t G p c T IH). right. eauto.
  Qed.
End HeldOff.

(** Theorems 1 and 3 with interrupts, from the premises as a machine is asked them. *)
Theorem theorem_1_with_held_interrupts m v takes interrupt enter_irq :
  A0_image m v -> A1_fidelity m v -> A2_fetch m v -> A4_entry_tells_apart m v -> A4_image_tells m v eq ->
  A5_control m v -> A5_vector m v -> A6_interrupt_tells_apart m v enter_irq -> A6_interrupt_noticed m v takes ->
  monitored_with_interrupts (held_machine m takes interrupt) (held m v takes interrupt)
    (held_direct m v takes interrupt (all_direct v)) (comes m takes interrupt) (held_enter m takes interrupt enter_irq).
Proof. intros A0 A1. now apply held_off. Qed.

Theorem theorem_3_with_held_interrupts m v takes interrupt enter_irq :
  A0_image m v -> A10_hybrid m v -> A2_fetch m v -> A4_entry_tells_apart m v -> A4_image_tells m v eq ->
  A5_control m v -> A5_vector m v -> A6_interrupt_tells_apart m v enter_irq -> A6_interrupt_noticed m v takes ->
  monitored_with_interrupts (held_machine m takes interrupt) (held m v takes interrupt)
    (held_direct m v takes interrupt (virtual_user v)) (comes m takes interrupt)
    (held_enter m takes interrupt enter_irq).
Proof. intros A0 A10. now apply held_off. Qed.
