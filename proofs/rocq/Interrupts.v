(** * Interrupts

    The paper leaves input and output out.  Here, between any two steps of the hardware that runs a
    guest, an interrupt may come; the control program keeps it, or passes it to the guest, by any
    schedule.  While the control program has control, interrupts wait. *)

From Coq Require Import List Arith Lia Streams.
Require Import Popek.Machine Popek.Premises Popek.Monitor Popek.Runs.

Inductive event : Type :=
| no_event
| kept_event     (* an interrupt that is the control program's own business *)
| passed_event.  (* one that the guest is given *)

Section Interrupts.
  Variable m : machine.
  Variable v : technique m.
  Variable direct : notes v -> bool.
  Variable p : private v.
  Variable interrupt : state m -> state m.   (* what an interrupt does to the bare machine *)
  Variable enter_irq : state m -> state m.   (* what it does to the hardware while a guest runs *)
  Variable recover_irq : private v -> notes v -> state m -> state m.
  Implicit Types (S T : state m).

  (** The bare machine under a schedule: an interrupt that is kept is none of its business. *)
  Definition guest_step (e : event) S : state m :=
    match e with no_event => step m S | kept_event => S | passed_event => interrupt S end.

  Fixpoint guest_run (events : nat -> event) (n : nat) S : state m :=
    match n with 0 => S | Datatypes.S n => guest_step (events n) (guest_run events n S) end.

  (** The host under a schedule.  Its state says how many events were taken, and whether an interrupt has
      control. *)
  Inductive irq_place : Type :=
  | Plain (x : host m v)
  | Interrupted (passed : bool) (h : state m) (n : notes v).

  Definition irq_host : Type := (nat * irq_place)%type.

  Definition give (passed : bool) S : state m := if passed then interrupt S else S.

  Definition at_event (e : event) (h : state m) (note : notes v) : irq_place :=
    match e with
    | no_event => Plain (host_step m v direct p (Running h, note))
    | kept_event => Interrupted false (enter_irq h) note
    | passed_event => Interrupted true (enter_irq h) note
    end.

  Definition irq_step (events : nat -> event) (x : irq_host) : irq_host :=
    match x with
    | (n, Plain (Running h, note)) => (Datatypes.S n, at_event (events n) h note)
    | (n, Plain (Interpreting G, _)) =>  (* an interpreter looks for interrupts between instructions *)
        (Datatypes.S n, Plain (resume m v direct p (guest_step (events n) G)))
    | (n, Plain y) => (n, Plain (host_step m v direct p y))
    | (n, Interrupted passed h note) =>
        (n, Plain (resume m v direct p (give passed (recover_irq p note h))))
    end.

  Fixpoint irq_run (events : nat -> event) (h : nat) (x : irq_host) : irq_host :=
    match h with 0 => x | Datatypes.S h => irq_step events (irq_run events h x) end.

  (** The host is in the middle of the n-th event, which will leave the guest in its n-th state. *)
  Inductive in_the_middle (events : nat -> event) S (n : nat) : irq_host -> Prop :=
  | of_a_trap G x : ok v G p -> guest_run events n S = step m G -> at_entry_from m v direct p G x ->
      in_the_middle events S n (n, Plain x)
  | of_an_interrupt G passed : ok v G p -> direct (note v G) = true -> guest_run events n S = give passed G ->
      in_the_middle events S n (n, Interrupted passed (enter_irq (image v G p)) (note v G)).

  Definition start S : irq_host := (0, Plain (resume m v direct p S)).

  Section Premises.
    Hypothesis Commutes : step_commutes m v direct p.
    Hypothesis A4 : A4_entry_tells m v.
    Hypothesis A6 : A6_interrupt_tells m v enter_irq recover_irq.

    (** For every schedule and every time h: n events have been taken, n <= h <= 2n, and the host is in
        the image of the state in which the bare machine is under the same schedule, or in the middle of
        the n-th event. *)
    Theorem interrupts events S h :
      (forall n, ok v (guest_run events n S) p) ->
      exists n, n <= h <= 2 * n /\
        (irq_run events h (start S) = (n, Plain (resume m v direct p (guest_run events n S))) \/
         h < 2 * n /\ in_the_middle events S n (irq_run events h (start S))).
    Proof.
      intros O. induction h as [| h (n & B & [At | [More At]])]; [now exists 0; auto | |].
      - (* between two events *)
        exists (Datatypes.S n). split; [lia |]. cbn [irq_run]. rewrite At.
        set (G := guest_run events n S) in *. pose proof (O n : ok v G p) as OG.
        destruct (direct (note v G)) eqn:D.
        + rewrite (resume_direct _ _ _ _ _ D). destruct (events n) eqn:Ev; cbn [irq_step]; rewrite Ev; cbn [at_event].
          * destruct (completes_or_stops m (image v G p)) as [(T & C) | (c & T & C)].
            -- rewrite (host_completes _ _ _ _ _ _ _ C). destruct (Commutes _ _ OG D C) as [-> N].
               left. cbn [guest_run]. rewrite Ev. cbn [guest_step]. fold G.
               rewrite resume_direct by now rewrite N. now rewrite N.
            -- rewrite (host_stops _ _ _ _ _ _ _ _ C). right. split; [lia |].
               apply of_a_trap with (G := G); [easy | | split; [easy | eauto]].
               cbn [guest_run]. now rewrite Ev.
          * right. split; [lia |]. apply of_an_interrupt; [easy | easy |].
            cbn [guest_run]. now rewrite Ev.
          * right. split; [lia |]. apply of_an_interrupt; [easy | easy |].
            cbn [guest_run]. now rewrite Ev.
        + rewrite (resume_held _ _ _ _ _ D). cbn [irq_step]. now left.
      - (* in the middle of one *)
        exists n. split; [lia |]. left. cbn [irq_run].
        destruct At as [G x OG Eq (D & c & T & C & ->) | G passed OG D Eq]; cbn [irq_step].
        + cbn [host_step]. now rewrite (A4 _ _ _ _ OG C), Eq.
        + now rewrite (A6 _ _ OG), Eq.
    Qed.

    (** ** Infinite runs, as streams

        The bare machine's states, event by event for ever, and the host's, each event taken to its end.
        One stream is the image of the other. *)

    Definition settle (e : event) (x : host m v) : host m v :=
      match x with
      | (Running h, n) =>
          match e with
          | no_event => match host_step m v direct p x with
                        | (Entered c h', n') => host_step m v direct p (Entered c h', n')
                        | y => y
                        end
          | kept_event => resume m v direct p (recover_irq p n (enter_irq h))
          | passed_event => resume m v direct p (interrupt (recover_irq p n (enter_irq h)))
          end
      | (Interpreting G, _) => resume m v direct p (guest_step e G)
      | y => y
      end.

    CoFixpoint guest_states (events : Stream event) S : Stream (state m) :=
      Cons S (guest_states (tl events) (guest_step (hd events) S)).

    CoFixpoint host_states (events : Stream event) (x : host m v) : Stream (host m v) :=
      Cons x (host_states (tl events) (settle (hd events) x)).

    Lemma settles e S : ok v S p ->
      settle e (resume m v direct p S) = resume m v direct p (guest_step e S).
    Proof.
      intros O. destruct (direct (note v S)) eqn:D.
      - rewrite (resume_direct _ _ _ _ _ D). destruct e; cbn [settle guest_step]; rewrite ?A6 by easy; try easy.
        destruct (completes_or_stops m (image v S p)) as [(T & C) | (c & T & C)].
        + rewrite (host_completes _ _ _ _ _ _ _ C). destruct (Commutes _ _ O D C) as [-> N].
          rewrite resume_direct by now rewrite N. now rewrite N.
        + rewrite (host_stops _ _ _ _ _ _ _ _ C). cbn [host_step]. now rewrite (A4 _ _ _ _ O C).
      - now rewrite (resume_held _ _ _ _ _ D).
    Qed.

    Theorem infinite_runs :
      A3_closure m v -> A6_interrupt_closure m v interrupt ->
      forall events S, ok v S p ->
        EqSt (map (resume m v direct p) (guest_states events S))
             (host_states events (resume m v direct p S)).
    Proof.
      intros A3 A6c. cofix Again. intros events S O. constructor; [reflexivity |].
      cbn [map tl guest_states host_states]. rewrite settles by easy. apply Again.
      destruct (hd events); cbn [guest_step]; [now apply (closed_run m v p S 1) | easy | now apply A6c].
    Qed.
  End Premises.

  (** ** Without a function that recovers

      As in [Runs.v]: where only A6's form with two guests is known, the control program goes on with a guest that
      could have led to where it is. *)
  Inductive may_irq (events : nat -> event) : irq_host -> irq_host -> Prop :=
  | may_take n h note : may_irq events (n, Plain (Running h, note)) (Datatypes.S n, at_event (events n) h note)
  | may_interpret_on n G note :
      may_irq events (n, Plain (Interpreting G, note))
        (Datatypes.S n, Plain (resume m v direct p (guest_step (events n) G)))
  | may_leave n c h note y : may_step m v direct p (Entered c h, note) y ->
      may_irq events (n, Plain (Entered c h, note)) (n, Plain y)
  | may_return n passed G : ok v G p -> direct (note v G) = true ->
      may_irq events (n, Interrupted passed (enter_irq (image v G p)) (note v G))
        (n, Plain (resume m v direct p (give passed G))).

  Inductive may_irq_run (events : nat -> event) (x : irq_host) : nat -> irq_host -> Prop :=
  | irq_begins : may_irq_run events x 0 x
  | irq_goes h y z : may_irq_run events x h y -> may_irq events y z -> may_irq_run events x (Datatypes.S h) z.

  Theorem interrupts_told_apart events S :
    step_commutes m v direct p -> direct_told_apart m v direct p ->
    A4_image_tells m v eq -> A6_interrupt_tells_apart m v enter_irq ->
    forall h x, may_irq_run events (start S) h x -> (forall n, ok v (guest_run events n S) p) ->
    exists n, n <= h <= 2 * n /\
      (x = (n, Plain (resume m v direct p (guest_run events n S))) \/ h < 2 * n /\ in_the_middle events S n x) /\
      exists y, may_irq events x y.
  Proof.
    intros Commutes A4 A4i A6 h x Path O.
    assert (Going : forall k G, exists y, may_irq events (k, Plain (resume m v direct p G)) y).
    { intros k G. unfold resume. destruct (direct (note v G)); eexists; constructor. }
    induction Path as [| h y z Path IH Move].
    - exists 0. split; [lia |]. split; [now left | apply Going].
    - destruct IH as (n & B & Where & _). destruct Where as [-> | [More At]].
      + (* between two events *)
        exists (Datatypes.S n). split; [lia |].
        set (G := guest_run events n S) in *. pose proof (O n : ok v G p) as OG.
        assert (Next1 : guest_run events (Datatypes.S n) S = guest_step (events n) G) by reflexivity.
        destruct (direct (note v G)) eqn:D.
        * rewrite (resume_direct _ _ _ _ _ D) in Move. inversion Move as [k h' n' E1 E2 | | |]; subst.
          destruct (events n) eqn:Ev; cbn [at_event].
          -- destruct (completes_or_stops m (image v G p)) as [(T & C) | (c & T & C)].
             ++ rewrite (host_completes _ _ _ _ _ _ _ C). destruct (Commutes _ _ OG D C) as [-> N].
                assert ((Running (image v (step m G) p), note v G) = resume m v direct p (step m G)) as ->
                  by (rewrite resume_direct by (now rewrite N); now rewrite N).
                rewrite Next1. split; [now left | apply Going].
             ++ rewrite (host_stops _ _ _ _ _ _ _ _ C).
                split; [right; split; [lia |] |].
                ** apply of_a_trap with (G := G); [easy | now rewrite Next1 | split; [easy | eauto]].
                ** eexists. apply may_leave. now apply may_resume with (T := T).
          -- split; [right; split; [lia |] |].
             ++ apply of_an_interrupt; [easy | easy | now rewrite Next1].
             ++ eexists. now apply may_return.
          -- split; [right; split; [lia |] |].
             ++ apply of_an_interrupt; [easy | easy | now rewrite Next1].
             ++ eexists. now apply may_return.
        * rewrite (resume_held _ _ _ _ _ D) in Move. inversion Move; subst.
          rewrite Next1. split; [now left | apply Going].
      + (* in the middle of one *)
        exists n. split; [lia |].
        destruct At as [G x OG Eq (D & c & T & C & ->) | G passed OG D Eq].
        * inversion Move as [| | n' c' h' note' y Step |]; subst.
          inversion Step as [| | c'' G' T' OG' D' C' Same1 Same2]; subst.
          assert (step m G' = step m G) as -> by (apply (A4 G' G c T' T); congruence).
          rewrite Eq. split; [now left | apply Going].
        * inversion Move as [| | | n' passed' G' OG' D' Same1]; subst.
          assert (G' = G) as ->.
          { apply (A4i G' G p); auto. }
          rewrite Eq. split; [now left | apply Going].
  Qed.
End Interrupts.

(** What a monitor owes under interrupts, whatever schedule: the host is in the image of the state that the bare
    machine is in under the same schedule, or in the middle of an event; it goes on; and the hardware is under
    control while it runs a guest. *)
Record monitored_with_interrupts m (v : technique m) (direct : notes v -> bool)
    (interrupt enter_irq : state m -> state m) : Prop := {
  irq_agreed : forall S p events h x, may_irq_run m v direct p interrupt enter_irq events (start m v direct p S) h x ->
    (forall n, ok v (guest_run m interrupt events n S) p) ->
    exists n, n <= h <= 2 * n /\
      (x = (n, Plain m v (resume m v direct p (guest_run m interrupt events n S))) \/
       h < 2 * n /\ in_the_middle m v direct p interrupt enter_irq events S n x);
  irq_goes_on : forall S p events h x, may_irq_run m v direct p interrupt enter_irq events (start m v direct p S) h x ->
    (forall n, ok v (guest_run m interrupt events n S) p) ->
    exists y, may_irq m v direct p interrupt enter_irq events x y;
  irq_in_control : forall S p events h n x,
    may_irq_run m v direct p interrupt enter_irq events (start m v direct p S) h (n, Plain m v x) ->
    (forall n, ok v (guest_run m interrupt events n S) p) -> controlled_by_notes m v p x
}.

Lemma with_interrupts m v direct interrupt enter_irq :
  A0_image m v -> (forall p, step_commutes m v direct p) -> (forall p, direct_told_apart m v direct p) ->
  A4_image_tells m v eq -> A5_control m v -> A5_vector m v -> A6_interrupt_tells_apart m v enter_irq ->
  monitored_with_interrupts m v direct interrupt enter_irq.
Proof.
  intros A0 C A4 A4i A5 A5v A6.
  pose proof (fun p events S => interrupts_told_apart m v direct p interrupt enter_irq events S (C p) (A4 p) A4i A6)
    as Told.
  split.
  - intros S p events h x Path O. destruct (Told p events S h x Path O) as (n & B & Where & _). eauto.
  - intros S p events h x Path O. destruct (Told p events S h x Path O) as (n & _ & _ & Goes). exact Goes.
  - intros S p events h n x Path O. destruct (Told p events S h _ Path O) as (k & _ & [At | [_ At]] & _).
    + injection At as -> ->. set (G := guest_run m interrupt events k S). pose proof (O k : ok v G p) as OG.
      unfold resume. destruct (direct (note v G)); [| exact I]. cbn.
      repeat split; [now apply A0 | now apply A5v |]. intros G' OG' N. now apply A5.
    + inversion At as [G y OG Eq (D & c & T & X & ->) |]; subst. exact I.
Qed.


(** ** The paper's machine

    An interrupt exchanges PSWs, as a trap does: A6 holds with the same recovering, and the guest is given
    an interrupt by exchanging its own. *)
Require Import Popek.ThirdGeneration Popek.Classes Popek.Map Popek.Theorem1.

Section PaperInterrupts.
  Variable t : third_generation.
  Notation m := (machine_of t).
  Notation paper := (paper t).

  Definition paper_irq : state m -> state m := exchange t.
  Definition paper_recover_irq (p : private paper) (n : notes paper) (h : state m) : state m :=
    recover_guest t p h.

  Lemma paper_A6 : A6_interrupt_tells m paper paper_irq paper_recover_irq.
  Proof. intros S p _. apply recover_after_trap. Qed.

  Lemma paper_A6_closure : A6_interrupt_closure m paper paper_irq.
  Proof. now intros S p O. Qed.

  Theorem theorem_1_with_interrupts :
    (forall i, sensitive t i -> privileged t i) ->
    references_relocated t -> traps_in_user_too t -> confined t ->
    forall S p events h, psw_M (to_psw t (entry p)) = supervisor ->
      let host := irq_run m paper (all_direct paper) p paper_irq paper_irq paper_recover_irq events in
      let guest := guest_run m paper_irq events in
      exists n, n <= h <= 2 * n /\
        (host h (0, Plain m paper (on t S p)) = (n, Plain m paper (on t (guest n S) p)) \/
         h < 2 * n /\
         in_the_middle m paper (all_direct paper) p paper_irq paper_irq events S n
           (host h (0, Plain m paper (on t S p)))).
  Proof.
    intros Sub Refs Traps Conf S p events h O.
    apply (interrupts m paper (all_direct paper) p paper_irq paper_irq paper_recover_irq); [| | | easy].
    - apply fidelity_commutes; [apply paper_A2 | now apply classes_imply_A1].
    - apply paper_A4.
    - apply paper_A6.
  Qed.
End PaperInterrupts.
